"""Models as people pass them on: what a checkpoint's folder holds, its model card, the Hugging Face hub.

No torch is needed to look at a model or to publish it.
"""
