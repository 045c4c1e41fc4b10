"""You are never 100% certain of your labels. Some are *wrong*, on some *people disagree*, and sometimes it is the model that is *too sure*. These are three problems, and for each there is a target that is softer than the label.

One callback serves any classifier: one label of N, many labels, a class at every pixel, text, language models, tables, detectors. The Learner's loss tells it which. Metrics and every other callback go on seeing hard targets, and `get_preds` gives probabilities, not logits."""

__version__ = "0.1.0"
