"""Using a model without torch: bundles, prediction, long recordings, streams.

    bundle.py       the folder that a model is shipped in, and ONNX Runtime to run it
    answering.py    from a model's outputs to answers: classes, confidence, scales
    predictor.py    one answer per recording, of any length
    segmentation.py, turns.py, plan.py    where a long recording is cut: windows, speech, speaker turns
    cutting.py, apart.py    its pieces, as they are decoded; in a process of their own
    ahead.py        many files decoded ahead of the model
    timeline.py     answers over time, and what they amount to by speaker
    streaming.py    the same of live audio
    inputs.py       which recordings: files, folders, a list, a table
    rows.py         one row per prediction, as JSON lines or CSV
    output.py       a file of rows that can be gone on with
    progress.py     how far it is
    sources.py      what a recording can be given as
    texts.py        the text beside it
    workers.py      several processes that answer side by side
    many.py         many recordings, with these
    shipped.py      the model that comes with the package

Imports numpy, soundfile, soxr and onnxruntime; what else is needed is an extra, and named where it is.
"""
