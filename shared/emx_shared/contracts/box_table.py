"""The table of boxes that phase 2 of training reads, whoever writes it: dataset_prep, or a server's feedback."""

import hashlib

BOX_COLUMNS = ("image", "term", "xmin", "ymin", "xmax", "ymax")
"""Columns, with boxes in fractions of the upright image, 0 to 1.

A row without box and term says that the image is normal. One without box, but with a finding's label (without its
side) or ``OTHER``, says that the image shows it, or may show it: the text must not deny it.
"""

OTHER = "other"
"""Stands for whatever the vocabulary lacks, or nobody has looked for."""


def patient_digest(patient: str) -> str:
    """Return what stands for a patient in a table: it tells which images are of one patient, and no more."""
    return hashlib.sha256(f"patient {patient}".encode()).hexdigest()[:12]
