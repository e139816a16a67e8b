"""Models as people share them: the folder of a checkpoint, its model card, the Hugging Face hub.

Looking at a model or publishing it needs no torch.
"""
