"""``python -m pyops demo`` and ``info``: the main job on a trained model, and what runs here."""
