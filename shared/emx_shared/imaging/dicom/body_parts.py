"""BodyPartExamined: which of its values rule out a chest."""

import re

_ELSEWHERE = {
    "ABDOMEN", "ABDOMENPELVIS", "ACETABULUM", "ACJOINT", "ANKLE", "ANKLES", "ARM", "BLADDER", "BRAIN", "BREAST",
    "BUTTOCK", "CALCANEUS", "CALF", "CAROTID", "CERVICALSPINE", "CERVIX", "COCCYX", "CRANIUM", "CSPINE",
    "CTSPINE", "EAR", "ELBOW", "ELBOWS", "EXTREMITY", "EYE", "FACE", "FACIALBONES", "FEET", "FEMUR", "FEMURS",
    "FINGER", "FINGERS", "FOOT", "FOREARM", "HAND", "HANDS", "HEAD", "HEADNECK", "HEEL", "HIP", "HIPS",
    "HUMERUS", "JAW", "KIDNEY", "KNEE", "KNEES", "LARYNX", "LEG", "LEGS", "LIVER", "LOWERLEG", "LOWERLIMB",
    "LSPINE", "LSSPINE", "LUMBARSPINE", "LUMBOSACRALSPINE", "MANDIBLE", "MASTOID", "MAXILLA", "MOUTH",
    "NASALBONE", "NECK", "NOSE", "ORBIT", "ORBITS", "PANCREAS", "PAROTID", "PATELLA", "PELVIS", "PENIS",
    "PROSTATE", "RADIUS", "RADIUSULNA", "RECTUM", "SACRUM", "SCALP", "SCROTUM", "SELLA", "SHOULDER", "SHOULDERS",
    "SIJOINT", "SIJOINTS", "SINUS", "SINUSES", "SKULL", "SPINE", "SPLEEN", "SSPINE", "STOMACH", "TEETH",
    "TESTIS", "THIGH", "THORACICSPINE", "THUMB", "TIBIA", "TIBIAFIBULA", "TLSPINE", "TMJ", "TOE", "TOES",
    "TONGUE", "TSPINE", "ULNA", "UPPERARM", "UPPERLIMB", "URETER", "URETHRA", "UTERUS", "VAGINA", "WRIST",
    "WRISTS", "ZYGOMA",
}  # fmt: skip


def is_elsewhere(body_part: str) -> bool:
    """Return whether a value is a defined term (DICOM PS3.16 Annex L) of a part without the chest.

    The element is free text in practice, in many languages, and often empty or a default: whatever isn't known
    to be another part may be a chest.
    """
    return re.sub(r"[^A-Z]", "", body_part.upper()) in _ELSEWHERE
