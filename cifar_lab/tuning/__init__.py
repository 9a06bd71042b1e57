"""A search for the best configuration on validation images, with Optuna's samplers and pruners.

``space`` reads what is searched, ``methods`` names samplers and pruners, ``search`` is what a folder belongs to, ``desk``
hands out trials, ``trials`` runs them, ``crew`` keeps the workers at it, and ``best`` says what was found.
"""
