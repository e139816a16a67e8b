"""Using a model without torch: bundles, prediction, long recordings, streams.

    bundle.py       the folder that a model is shipped in, and ONNX Runtime to run it
    answering.py    from a model's outputs to answers: classes, confidence, scales
    predictor.py    one answer per recording, of any length
    segmentation.py, turns.py, plan.py    where a long recording is cut: windows, speech, speaker turns
    cutting.py, apart.py    its pieces, as they are decoded; in a process of their own
    timeline.py     answers over time, and what they amount to by speaker
    streaming.py    the same of live audio

Imports numpy, soundfile, soxr and onnxruntime; what else is needed is an extra, and named where it is.
"""
