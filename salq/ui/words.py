"""Every sentence that the shell, Learn, Explore and Runs show. Calibrate and Compare keep theirs beside their layout."""

TITLE = "salq: see what quantization does"
PROMISE = "See what quantization does to a LLaMA: which weights matter, where the error is, and what calibration repairs."

TABS = {"learn": "Learn", "explore": "Explore", "calibrate": "Calibrate", "compare": "Compare", "runs": "Runs"}

MODEL_INFO_LOCAL = "A name from the list, any LLaMA's hub id, or a folder on this machine."
MODEL_INFO_PUBLIC = "Models that this public host can hold."
BITS_INFO = "Width of one code: 2 bits are 4 levels, 8 bits are 256."
GROUP_INFO = "Consecutive inputs that share one scale and zero point."
SYMMETRIC_INFO = "Levels mirrored around zero; off: each group has its own zero point."
DEVICE_INFO = "Where saliency, calibration and chat are computed."
TEXT_INFO = "Text for saliency, output error and calibration; quality is measured on other text."
DEVICE_WAITS = "Looking for devices."
TEXT_WAITS = "Looking for texts."
WORKPLACE = "Set once, used in every tab"

EXPLORE_LEDE = "Every cell is one matrix of the model. Click one to see its weights from above; click there to see one group of them on its levels."
METRIC_INFO = "What a cell's colour tells: how far weights move, how far outputs move, or how much a weight matters."
BLOCK_INFO = "Decoder layer, from 0."
MATRIX_INFO = "One of the seven linear layers of a block."
MADE_BY_INFO = "Whose codes are shown: plain rounding, or a finished calibration."
MINUS_INFO = "Subtract another one: blue where A is better, red where B is."
BUDGET_INFO = "Every matrix starts at 2 bits; the next bits go where they take away most predicted loss per byte."
ROW_INFO = "One output of the matrix. Click the map above, or focus it and use the arrow keys."
GROUP_NUMBER_INFO = "Counted along the row: group 0 holds its first inputs."
GROUP_WAITS = "Click a place of the map, or type a row and a group: its weights, their levels and their codes appear here."
TILE_HINT = (
    "One cell is one real weight; the frame is the selected group. w and ŵ share one colour scale, centred at 0; their difference has its own, "
    "so that it can be seen at all. Drag to zoom, double-click to go back."
)
POOLING_INFO = "How the weights under one cell become one colour. Mean hides outliers."
FETCHING = "Fetching {model}: this happens once and may take a minute."
NOT_FETCHED = "The weights of {model} are not on this machine yet{size}. Click a cell or pick a matrix to fetch them, once; then its maps appear."
BEING_REDUCED = "Being reduced: nobody has looked at this matrix in this way before, so its maps are made now, once, in a process of its own."
STARTED = "Started; it goes on if you close this page."
MAPS_HINT = (
    "F is the saliency (diagonal of the empirical Fisher matrix), w a weight and ŵ what rounding makes of it; ½ F (w − ŵ)² is roughly "
    "how much moving that weight alone raises the loss. Colours are logarithmic between the 1st and 99th percentile. "
    "Hover to read all maps at one place, drag to zoom, double-click to go back."
)

LEARN_WHAT = (
    "A language model is a few hundred large tables of numbers, its weights. Quantization stores each weight as a code of a few bits instead of "
    "16: a level on a short ruler. Each group of neighbouring weights gets a ruler of its own, with a step (the scale) and a mark for zero "
    "(the zero point). Fewer bits, fewer marks, so every weight moves a little to the nearest one."
)
LEARN_GROUP = (
    "One real group of {count} weights from block {block}, {matrix}, row {row}: each dot is a weight, each blue tick a level that it can take."
)
LEARN_NEXT = (
    "Not every move hurts. A few weights carry most of the effect on the model's predictions (saliency), and the error that a matrix makes on real "
    "inputs differs from the error of its weights. Explore shows all three for every matrix; Calibrate learns rulers and small corrections that "
    "keep the outputs where they were; Compare lets you talk to the result beside the original."
)
LEARN_EMPTY = "No measured results are kept for {model} yet: `make assets` computes them. Explore can compute this model's own now."

RUNS_LEDE = "Every run is a point: how large the model becomes, and what that costs in quality."
RUNS_QUALITY_INFO = "Both are measured on text that calibration did not see."
RUNS_EMPTY = "No finished run of this model yet. Start one in Calibrate, or start a sweep below."
SWEEP_INFO = "Runs every combination, one after the other, in the background; the page may be closed."
SWEEP_RECIPES_INFO = "Methods to compare."
SWEEP_BITS_INFO = "Widths of a code."
SWEEP_GROUPS_INFO = "Inputs that share one scale."
SWEEP_PRESET_INFO = "How long each run calibrates."
RUN_INFO = "Pick one here, or click a row or a point of the chart."
RUNS_LEGEND = (
    "Filled points are runs of this machine, open ones are kept in the repository; bars are 95 % (1.96 standard errors over windows of text); "
    "the dotted line joins what nothing beats. Click a point to pick its run."
)
PINNED = "It is pinned: it stays when finished runs are removed, the oldest first, to keep to this machine's quota of {quota} GB."
NOT_PINNED = "It is not pinned: once all runs take more than {quota} GB, the oldest finished ones are removed. Pin keeps it."
PINNED_NO_QUOTA = "It is pinned. No quota of disk is set here (SALQ_QUOTA_GB), so no run is removed by itself anyway."
NOT_PINNED_NO_QUOTA = "It is not pinned. No quota of disk is set here (SALQ_QUOTA_GB); should one be set, Pin keeps the run from being removed."
PIN, UNPIN = "Pin", "Unpin"
PIN_EXPLORED, UNPIN_EXPLORED = "Pin these results", "Unpin these results"
DELETE_CONFIRM = "Delete this run with its finished blocks? This cannot be undone."
PASSWORD = "This server asks for a password; whoever runs it has told you. Any name will do; keep to it, your runs belong to it."
