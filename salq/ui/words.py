"""Every sentence that the shell, Learn, Explore and Runs show. Calibrate and Compare keep theirs beside their layout."""

TITLE = "salq: see what quantization does"
PROMISE = (
    "See what quantization does to a LLaMA: which weights matter, where the error is, and what calibration repairs."
)

TABS = {"learn": "Learn", "explore": "Explore", "calibrate": "Calibrate", "compare": "Compare", "runs": "Runs"}

MODEL_INFO_LOCAL = "A name from the list, any LLaMA's hub id, or a folder on this machine."
MODEL_INFO_PUBLIC = "Models that this public host can hold."
BITS_INFO = "Width of one code: 2 bits are 4 levels, 8 bits are 256."
GROUP_INFO = "Consecutive inputs that share one scale and zero point."
SYMMETRIC_INFO = "Levels mirrored around zero; off: each group has its own zero point."
DEVICE_INFO = "Where saliency, calibration and chat are computed."
TEXT_INFO = "Text for saliency, output error and calibration; quality is always measured on other text."
