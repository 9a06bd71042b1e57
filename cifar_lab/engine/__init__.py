"""The loop: state that can be saved exactly, training, prediction and checkpoints.

The engine is handed a model, an optimiser and a schedule; it knows no names and no folders' meaning
beyond ``checkpoints``.
"""
