"A smoother of your own: an error says at once what is missing or wrong in it"
import pytest
from fastai.vision.all import *
from fastai_labelsmooth.all import *
from helpers import digits_learner, items_learner

@pytest.mark.parametrize('kind,method', [
    (Smoother, r'__call__\(targ, batch\)'),
    (Mixture, r'rest\(targ, batch\)'),
    (ByClass, r'table\(batch\)')])
def test_a_class_without_its_method_says_which(kind, method):
    class Mine(kind): pass
    learn = digits_learner(LabelSmooth(0.1, Mine()))
    with pytest.raises(NotImplementedError, match=rf'mode=Mine\(\): expected .* `{method}`'): learn.fit(1)

def mask_learner(mode, void=255):
    "A learner of masks in which a quarter is void"
    mask = torch.tensor([0, 1, 2, void]*4).view(4, 4)
    items = [(torch.randn(3, 4, 4), mask) for _ in range(4)]
    loss = CrossEntropyLossFlat(axis=1, ignore_index=void)
    return items_learner(items, nn.Conv2d(3, 4, 1), loss, LabelSmooth(0.1, mode), bs=2)

def counts_void(targ, batch):
    "Takes what is void for the last class"
    n = batch.task.n
    return (1-batch.eps)*F.one_hot(targ.clamp(max=n-1), n).movedim(-1, 1) + batch.eps/n

def leaves_void_out(targ, batch):
    return counts_void(targ, batch) * (targ != batch.task.ignore_index).unsqueeze(1)

def fit(learn): learn.fit(1)
def show_batch(learn): learn.label_smooth.show_batch()

@pytest.mark.parametrize('ask', [fit, show_batch])
def test_a_target_for_what_is_ignored_is_refused(ask):
    learn = mask_learner(counts_void)
    with pytest.raises(ValueError, match='where the label is ignore_index=255: expected zeros'): ask(learn)
    ask(mask_learner(leaves_void_out))

def test_a_class_that_is_ignored_is_refused_too():
    with pytest.raises(ValueError, match='ignore_index=3'): mask_learner(counts_void, void=3).fit(1)

def rows_of_similarity(table): return torch.as_tensor(np.array(similarity_rows(table)))

@pytest.mark.parametrize('make', [lambda table: Rows(table).r, rows_of_similarity], ids=['Rows', 'similarity_rows'])
def test_a_table_with_names_is_a_matrix(make):
    table = pd.DataFrame([[0, .8, .2], [.5, 0, .5], [.3, .7, 0]], list('abc'), list('abc'))
    matrix = make(table.to_numpy())
    assert torch.equal(make(table), matrix)
    assert torch.equal(make(table[list('cab')]), matrix) # columns in another order
    renamed = table.rename(columns=dict(a='d'))
    with pytest.raises(ValueError, match="columns .*: expected the same classes"): make(renamed)
