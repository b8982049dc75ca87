"""DICOM radiographs, and what guards their decoders."""
