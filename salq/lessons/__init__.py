"""The seven lessons: their words, the measured material that they draw, and the document that they make."""
