"""Runs against each other: who is better, by how much, at what cost, and whether chance explains it.

``entries`` opens runs and puts the seeds of one configuration together, ``pairs`` tests their answers image by image,
``tables`` and ``convergence`` say what the numbers are, ``notes`` what to know before believing them,
``pictures`` draws them, ``page`` joins all of it into a folder.
"""
