"A smoother of one's own: what is missing or wrong in it is said at once, in words"
import pytest
from fastai.vision.all import *
from fastai_labelsmooth.all import *
from conftest import digits_learner

@pytest.mark.parametrize('kind,method', [(Smoother, r'__call__\(targ, batch\)'), (Mixture, r'rest\(targ, batch\)'), (ByClass, r'table\(batch\)')])
def test_a_class_without_its_method_says_which(kind, method):
    class Mine(kind): pass
    with pytest.raises(NotImplementedError, match=rf'mode=Mine\(\): expected .* `{method}`'): digits_learner(LabelSmooth(0.1, Mine())).fit(1)
