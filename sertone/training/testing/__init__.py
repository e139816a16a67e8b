"""Score a trained model on test speakers, and calibrate its confidence."""
