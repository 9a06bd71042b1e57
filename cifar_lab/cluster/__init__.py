"""Jobs of a sweep under launchers that are not ours: Slurm and processes of their own by submitit, Ray.

``submitting`` is the side that waits for them, ``jobs`` the side that runs, ``gpus`` which GPU a job takes.
Whatever a launcher says of a job, only the run's result.json counts.
"""
