"""Every sentence of the seven lessons, as data: the page and the document (`python -m salq learn`) read the same ones.

Numbers never stand here: `{name}` in `measured` is filled by `lessons.facts` from kept results (a sentence whose number is not known is
left out), `{name}` in `live` by the browser while the learner moves something.
"""

from pydantic import BaseModel, ConfigDict, Field


class Lesson(BaseModel):
    """One lesson: what it says, what it asks, what the learner does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str = Field(description="Name of the widget.")
    title: str
    why: str = Field(description="The question that the lesson answers.")
    lede: str = Field(description="What it is about.")
    look: str = Field(description="What the picture of the page shows.")
    ask: str = Field(description="What to predict before the reveal.")
    options: tuple[str, str, str]
    answer: int = Field(ge=0, le=2, description="Index of the right option.")
    reveal: str = Field(description="The explanation, shown after the prediction.")
    measured: tuple[str, ...] = Field(description="Sentences with numbers of real runs.")
    task: str = Field(description="What to do; the guided tour goes on when it is done.")
    law: str = Field(description="The formula in symbols.")
    live: str = Field(description="The formula with live numbers.")


LESSONS: tuple[Lesson, ...] = (
    Lesson(
        key="levels",
        title="Where the ruler ends",
        why="Why clipping?",
        lede=(
            "A weight is one number of a model, stored in 16 bits. Quantization stores a short code instead: the nearest mark on a "
            "ruler. With 2 bits the ruler has 4 marks, with 3 bits 8. The marks are spread evenly from the smallest to the largest "
            "weight."
        ),
        look=("Dots are weights, blue ticks the marks, orange lines how far each weight moves. Outside the orange handles, weights are cut off."),
        ask="The largest weight lies far out. You pull the end of the ruler inward, so that this one weight is cut off. All moves together become",
        options=("larger, a cut weight moves far", "smaller, up to a point", "no different"),
        answer=1,
        reveal=(
            "The marks are spread over the whole range, so one far weight makes every step wide. Cutting it off costs one large move and makes all "
            "others smaller. Cut too much and the large moves win: somewhere between lies the best clip. Calibration learns it for every "
            "group, by what it does to the outputs (learnable weight clipping)."
        ),
        measured=(
            "In {title}, block {block}, {matrix}, one group of {count} weights: at 2 bits the best clip keeps {best_share2} of the range and takes "
            "{best_gain2} of the squared error away; at 3 bits it keeps {best_share3} and takes {best_gain3}. Clipping matters where marks are few.",
            "One bit less halves the number of marks: the step of that group is {step3} at 3 bits and {step2} at 2 bits.",
        ),
        task="Drag an orange handle, or a slider, inward until the squared moves are as small as they get.",
        law="scale = (high − low) / (2^bits − 1)     code = clamp(round(w / scale) + zero, 0, 2^bits − 1)     ŵ = (code − zero) · scale",
        live=(
            "scale = ({high} − {low}) / {most} = {scale}, zero = {zero};  w = {weight} → code {code} → ŵ = ({code} − {zero}) · {scale} = {value}, "
            "a move of {move}"
        ),
    ),
    Lesson(
        key="groups",
        title="One outlier, one group",
        why="Why groups?",
        lede=(
            "Weights that share a ruler share its step. When a whole row of a matrix has one ruler, its largest weight decides the "
            "step for all the others."
        ),
        look=("Stems are the weights of one row, blue lines the marks of their ruler. Bars below: how far the weights of a group move."),
        ask="You cut the row into groups, each with a ruler of its own. What does the one outlier spoil then?",
        options=("the whole row, as before", "its own group only", "nothing at all"),
        answer=1,
        reveal=(
            "Each group has its own scale and zero point, so the outlier widens the step of its own group only. It is not free: every group stores "
            "a 16-bit scale and a zero point, so the smaller the groups, the more bits go into rulers. Groups of 64 are a usual middle."
        ),
        measured=(
            "{title}, rounded to 3 bits: perplexity {rtn3} with groups of 64 ({bits3} bits per weight), {rtn3_g32} with groups of 32 "
            "({bits3_g32} bits per weight); the original has {original}.",
            "In the row shown here, groups of 64 leave {row_gain} of the squared error that one ruler for {row_count} weights has.",
        ),
        task="Choose smaller groups until the squared moves are less than half.",
        law="bits per weight = bits + (16 + bits) / group size",
        live=("{bits} + {scales} / {size} = {stored} bits per weight;  rulers: {groups}, root mean square move {error}, with one ruler {whole}"),
    ),
    Lesson(
        key="saliency",
        title="Not every move hurts",
        why="Why saliency?",
        lede=(
            "Rounding moves every weight a little. How much the model's loss reacts to a weight is its saliency. Saliency and move "
            "together predict the damage."
        ),
        look=(
            "Three maps of the same weights: saliency, move, and both together. Brighter is more; colours are logarithmic. Orange frames: kept exact."
        ),
        ask="You may keep 2 % of the weights in full precision. Which ones save most of the predicted loss?",
        options=("those that move furthest", "the largest weights", "those with the highest saliency"),
        answer=2,
        reveal=(
            "Moves differ little: each is at most half a step of its group. Saliency differs by orders of magnitude from weight to weight. So the "
            "damage is decided by saliency, and a few weights carry most of it. Plain squared error does not see this: it hardly falls when the "
            "salient weights are kept. That is why SAPR adds a saliency-weighted term to calibration."
        ),
        measured=(
            "In {title}, block {block}, {matrix}: the top 1 % of weights hold {top_saliency} of all saliency, but {top_error} of all moves.",
            "In the whole model at 3 bits, keeping the 2 % most salient weights leaves {left_saliency} of the predicted loss; keeping the 2 % "
            "that move furthest leaves {left_move}.",
        ),
        task="Choose by saliency and keep weights until less than 60 % of the predicted loss is left.",
        law="predicted rise of the loss ≈ ½ · F · (w − ŵ)²,  F: mean squared gradient (diagonal of the empirical Fisher matrix)",
        live="most costly weight: ½ · {fisher} · {move}² = {cost};  all together {total}, with {kept} of {count} weights kept {left}",
    ),
    Lesson(
        key="travel",
        title="Errors travel",
        why="Why is a model calibrated block by block?",
        lede=("A model is a stack of blocks; each works on what the one before it hands over, errors included."),
        look=("Dots: the error when only this block is rounded. Orange line: the error when all blocks are."),
        ask="Compared with the error that one block makes alone, the error of the whole stack is",
        options=("about the same", "several times as large, but less than the sum", "the sum of all blocks"),
        answer=1,
        reveal=(
            "Every block works on what the blocks before it got wrong. The errors point in different directions, so they grow more slowly than a "
            "sum, but they grow, and no single block is to blame: keeping one in full precision takes its own share away, hardly more. That is why "
            "calibration goes from the first block to the last and shows each block the inputs that the blocks before it really produce, errors "
            "included: it can then repair some of them."
        ),
        measured=(
            "{title} at 3 bits: a block alone puts the hidden state {alone3} off on average, all {blocks} together {last3} after the last one.",
            "At 2 bits the same stack ends {last2} off. Keeping block {best_block} in full precision helps most at 3 bits: {best_last} at the end.",
        ),
        task="Keep one block in full precision, and find one that lowers the error at the end.",
        law="error after a block = mean over tokens of |ĥ − h| / |h|,  h: the hidden state, ĥ: that of the rounded blocks",
        live="alone {alone} on average;  all {blocks} blocks {last} at the end, with {kept} in full precision {now}",
    ),
    Lesson(
        key="adapters",
        title="A small repair beside the matrix",
        why="Why adapters?",
        lede=(
            "Rounding takes W − Ŵ away from a matrix W. An adapter is a product of two thin matrices that is added back. Its rank "
            "says how thin it is and what it costs. How much of the error fits into it?"
        ),
        look=("Above: the strength of each direction of the error, strongest first; blue is what the adapter holds. Below: what is left."),
        ask="Seen as a matrix, the rounding error is closest to",
        options=("a few strong directions", "random noise, in all directions alike", "zero"),
        answer=1,
        reveal=(
            "Rounding errors are nearly random, so no few directions hold much of them: a low-rank copy of the weight error repairs little. "
            "But the inputs of a matrix are not random. Seen at the outputs, (W − Ŵ)X, a few directions hold most of the error, and these an "
            "adapter can repair. So calibration fits adapter and clipping to the outputs, on real text, and not to the weights."
        ),
        measured=(
            "In {title}, block {block}, {matrix} at 3 bits: rank {rank} leaves {left_weight} of the error of the weights "
            "({left_random} for a random matrix), but {left_output} of the error of the outputs.",
            "Calibrated at 3 bits with adapters of rank {run_rank}: perplexity {best3} ({best3_name}, {bits_best3} bits per "
            "weight), rounded without them {rtn3}.",
        ),
        task="Look at the error of the outputs, and raise the rank until less than 80 % of it is left.",
        law="W x ≈ Ŵ x + B (A x),  extra bits per weight = 16 · rank · (out + in) / (out · in)",
        live="rank {rank} of a {out} x {inputs} matrix: {added} bits per weight more, {left} of the error left ({noise} for a random matrix)",
    ),
    Lesson(
        key="budget",
        title="Spend bits wisely",
        why="Why may 3 bits be fine where 2 are not?",
        lede=("The seven kinds of matrices of a block do not need the same number of bits: some are large, some react strongly."),
        look=(
            "Width of a column: how many weights. Height: the bits that you give them. Stay below the dashed line and beat the same width everywhere."
        ),
        ask="One bit less for every weight makes the predicted loss",
        options=("a little larger", "about twice as large", "about four times as large"),
        answer=2,
        reveal=(
            "One bit less doubles the step, so every squared move becomes about four times as large, and so does the predicted loss. At 3 bits a "
            "step is small beside the weights, and calibration can repair much of what is lost. At 2 bits four marks must do: the error is nearly "
            "half as large as the weights themselves, it piles up from block to block, and the model breaks. Where bits are scarce they belong where "
            "saliency and error are high. Mind that the prediction adds up small, separate effects; where errors are large it is a rough guide, "
            "so a deal has to be measured."
        ),
        measured=(
            "{title}, rounded in groups of 64: perplexity {original} in 16 bits, {rtn4} at 4 bits, {rtn3} at 3 bits, {rtn2} at 2 bits.",
            "A weight moves by {weight_error3} of its size at 3 bits and by {weight_error2} at 2 bits (relative error of the middle matrix).",
            "All matrices at 2 bits: predicted loss {predicted_ratio} times that of 3 bits.",
            "The same 3.0 bits per weight dealt out by saliency, matrix by matrix: predicted loss {predicted_dealt3} in place of {predicted3}, but "
            "measured perplexity {dealt3} in place of {uniform3} (standard error {se3}): no gain that could be told from noise.",
        ),
        task="Stay within the budget and get below the loss of the same width everywhere.",
        law="cost(matrix, bits) = Σ ½ F (w − ŵ)²,  buy again and again the step with the largest saving per bit",
        live=(
            "{spent} of {mean} bits per weight spent: predicted rise {cost}, against {uniform} with {same} bits everywhere and {best} for the "
            "best deal by kind"
        ),
    ),
    Lesson(
        key="talk",
        title="Does it talk the same?",
        why="How is the damage measured?",
        lede=(
            "A language model gives every possible next word a probability. Quantization shifts these. The KL divergence says how "
            "far, in nats; agreement, how often the most likely word is still the same."
        ),
        look=("Grey: the original, blue: the quantized model. With real weights: an answer of the original, as quantized models see it."),
        ask="Two models answer the same question. After one different word, the rest of their answers",
        options=("stays the same", "drifts apart", "becomes random"),
        answer=1,
        reveal=(
            "Each word depends on all words before it, so answers part after the first different one, and comparing them word by word says little. "
            "A fair measure shows both models the same text and compares their probabilities at every place: KL and agreement. Perplexity says how "
            "well a model predicts a text that it did not see."
        ),
        measured=(
            "{title} on text that calibration did not see: KL {kl4}, {kl3} and {kl2} nats per token at 4, 3 and 2 bits; the most likely token "
            "is the same in {agree4}, {agree3} and {agree2} of places. Calibrated at 3 bits ({best3_name}): {kl_best3} nats and {agree_best3}.",
        ),
        task="Raise the error until another word becomes the most likely one; or, with real weights, look at the tokens.",
        law="KL = Σ p · ln(p / q),  p: the original's probabilities, q: the quantized model's",
        live="KL = {kl} nats;  most likely: {agree}",
    ),
)

TITLE = "Seven small lessons"
INTRO = "Each one is a thing to move. They begin with a toy and go on with real weights at one click. Ten minutes in all."
OFFER = "New to this? The tour leads through the seven lessons and goes on when you have done what each one asks."
TOUR, LEAVE = "Start the tour", "Leave the tour"
SOURCES = {"toy": "Toy", "kept": "Real weights", "selected": "My selection"}
"""What a lesson can draw: its toy, the kept material of the default model, the matrix that is selected in Explore."""

KEPT_NOTE = "{title}, block {block}, {matrix}. {note}"
SELECTED_NOTE = "{title}, block {block}, {matrix}: first rows and inputs, rounded here."
NOTHING_KEPT = "No measured material is kept; `make assets` measures it."

DOCUMENT_TITLE = "What quantization does, in seven lessons"
DOCUMENT_INTRO = (
    "A language model is a few hundred large tables of numbers, its weights. Quantization stores each of them in a few bits instead of 16. "
    "Every number below was measured by salq on {title}; the page shows the same lessons with things to move (`make run`, tab Learn)."
)
