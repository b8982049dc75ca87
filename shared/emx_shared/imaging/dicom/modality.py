"""Which DICOM files are radiographs of a chest."""

from pydicom import uid

from emx_shared.imaging.dicom.body_parts import is_elsewhere
from emx_shared.imaging.dicom.header import Header
from emx_shared.imaging.refusals import BadImage, NotAnImage

RADIOGRAPHS = {
    "CR": "computed radiography",
    "DX": "digital radiography",
    # No defined terms, but written by devices and sites
    "DR": "digital radiography",
    "RX": "radiography",
    "XR": "radiography",
}
_RADIOGRAPH_CLASSES = {
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.DigitalXRayImageStorageForProcessing,
}
_OTHERS = {
    "AU": "audio", "BI": "biomagnetic imaging", "BMD": "bone densitometry", "CT": "computed tomography",
    "DOC": "a document", "ECG": "electrocardiography", "ES": "endoscopy", "GM": "general microscopy",
    "HC": "hard copy", "IO": "intra-oral radiography", "IVUS": "intravascular ultrasound",
    "KO": "a key object selection", "MG": "mammography", "MR": "magnetic resonance", "NM": "nuclear medicine",
    "OP": "ophthalmic photography", "OPT": "ophthalmic tomography", "OT": "other", "PR": "a presentation state",
    "PT": "positron emission tomography", "PX": "panoramic radiography", "REG": "a registration",
    "RF": "radiofluoroscopy", "RG": "radiographic imaging on film", "RTDOSE": "a radiotherapy dose",
    "RTIMAGE": "a radiotherapy image", "RTPLAN": "a radiotherapy plan", "RTRECORD": "a radiotherapy record",
    "RTSTRUCT": "a radiotherapy structure set", "SC": "secondary capture", "SEG": "a segmentation",
    "SM": "slide microscopy", "SR": "a structured report", "TG": "thermography", "US": "ultrasound",
    "XA": "X-ray angiography", "XC": "external-camera photography",
}  # fmt: skip
"""Defined terms of Modality, PS3.3 C.7.3.1.1.1: those that a refusal can name."""


def check_modality(header: Header) -> None:
    """Refuse what is no radiograph by its Modality, or its SOP class where that says nothing. Raises BadImage."""
    modality = header.text("Modality")
    if modality in RADIOGRAPHS:
        return
    if modality in _OTHERS:
        raise NotAnImage(
            f"The file is not a radiograph (CR or DX): its modality is {modality}, {_OTHERS[modality]}."
        )
    if header.sop_class not in _RADIOGRAPH_CLASSES:
        named = "not one that is known" if modality else "not given, and its SOP class is another"
        raise NotAnImage(f"The file is not a radiograph (CR or DX): its modality is {named}.")


def check_body_part(header: Header) -> None:
    """Refuse a radiograph that names other parts of the body only. Raises BadImage."""
    parts = header.texts("BodyPartExamined")
    if parts and all(map(is_elsewhere, parts)):
        raise BadImage("The radiograph is not of the chest: it names another body part.")
