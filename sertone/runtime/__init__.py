"""Using a model without torch: bundles, prediction, long recordings, streams.

    bundle.py       the folder that a model is shipped in, and ONNX Runtime to run it
    answering.py    from a model's outputs to answers: classes, confidence, scales
    predictor.py    one answer per recording

Imports numpy, soundfile, soxr and onnxruntime; what else is needed is an extra, and named where it is.
"""
