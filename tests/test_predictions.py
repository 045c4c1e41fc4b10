"`topk`: the best predictions by name, with the loss of each item, in the order of the dataset"
import pytest
from pytest import param
from torch.testing import assert_close
from fastai.basics import *
from fastai.data.all import DataBlock, RandomSplitter, TransformBlock
from fastai_labelsmooth.all import *
from helpers import digits, digits_learner, logits_learner as learner, multi_data, seg_data, softmax_data

def nll(learn):
    "The negative log-likelihood that `CalibrationInterpretation` gives"
    return CalibrationInterpretation.from_learner(learn).summary().loc['all', 'negative log-likelihood']

def test_topk_holds_the_sorted_softmax():
    z,y = softmax_data(100)
    top = learner(z, y, CrossEntropyLossFlat()).topk(k=3)
    probs,idx = z.softmax(1).topk(3)
    assert list(top) == ['source', 'target', 'loss', 'pred_1', 'prob_1', 'pred_2', 'prob_2', 'pred_3', 'prob_3']
    assert top['target'].tolist() == y.tolist()
    losses = [-math.log(p[t]) for p,t in zip(z.double().softmax(1).tolist(), y.tolist())]
    assert top['loss'].to_numpy() == pytest.approx(losses, rel=1e-4, abs=1e-6)
    for i in range(3):
        assert top[f'pred_{i+1}'].tolist() == idx[:, i].tolist()
        assert top[f'prob_{i+1}'].to_numpy() == pytest.approx(probs[:, i].numpy())

def test_topk_names_the_labels():
    z,y = multi_data(50)
    learn = learner(z, y, BCEWithLogitsLossFlat())
    learn.dls.vocab = list('abcd')
    top = learn.topk(k=2)
    assert top['target'].tolist() == [';'.join(c for c,t in zip('abcd', o) if t) for o in y]
    assert top['pred_1'].tolist() == ['abcd'[i] for i in z.argmax(1)]
    assert top['prob_2'].to_numpy() == pytest.approx(z.sigmoid().topk(2).values[:, 1].numpy())

@pytest.mark.parametrize('pred_column', [True, False])
@pytest.mark.parametrize('targ_column', [True, False])
@pytest.mark.parametrize('dtype', [torch.float32, torch.int64, torch.bool])
def test_topk_of_one_logit_has_two_classes(pred_column, targ_column, dtype):
    "Two classes, no and yes"
    z,y = multi_data(50, 1)
    learn = learner(z if pred_column else z[:, 0], (y if targ_column else y[:, 0]).to(dtype), BCEWithLogitsLossFlat())
    learn.dls.vocab = ['no', 'yes']
    top,p = learn.topk(k=2),z.double().sigmoid()[:, 0]
    assert top['target'].tolist() == [['no', 'yes'][int(o)] for o in y[:, 0]]
    assert top['pred_1'].tolist() == [['no', 'yes'][int(o > .5)] for o in p]
    assert top['prob_1'].to_numpy() == pytest.approx(p.maximum(1-p).numpy())
    assert top['prob_2'].to_numpy() == pytest.approx(p.minimum(1-p).numpy())
    losses = F.binary_cross_entropy(p, y[:, 0].double(), reduction='none').numpy()
    assert top['loss'].to_numpy() == pytest.approx(losses, rel=1e-4, abs=1e-6)
    without_targets = DataLoader([(o,) for o in z], bs=8, num_workers=0)
    assert list(learn.topk(k=1, dl=without_targets)) == ['source', 'pred_1', 'prob_1']

def test_topk_names_the_two_classes_of_text():
    "fastai's text has two vocabularies, and here as many classes"
    z,y = softmax_data(20, 2)
    learn = learner(z, y, CrossEntropyLossFlat())
    for vocab in ([['xxunk', 'xxpad', 'film'], ['neg', 'pos']], ['neg', 'pos']):
        learn.dls.vocab = vocab
        assert learn.topk(k=1)['pred_1'].tolist() == [['neg', 'pos'][i] for i in z.argmax(1)]

def test_topk_unshuffles_and_needs_no_targets():
    z,y = softmax_data(100)
    learn = learner(z, y, CrossEntropyLossFlat())
    shuffled = DataLoader(list(zip(z, y)), bs=8, shuffle=True, num_workers=0)
    pd.testing.assert_frame_equal(learn.topk(dl=shuffled), learn.topk())
    top = learn.topk(k=2, dl=DataLoader([(o,) for o in z], bs=8, shuffle=True, num_workers=0))
    assert list(top) == ['source', 'pred_1', 'prob_1', 'pred_2', 'prob_2']
    assert top['pred_1'].tolist() == z.argmax(1).tolist()

def test_topk_of_the_training_set_is_whole_and_in_order():
    "Although its loader shuffles and drops the last batch"
    z,y = softmax_data(100)
    learn = learner(z, y, CrossEntropyLossFlat(), shuffle=True, drop_last=True)
    top = learn.topk(ds_idx=0)
    assert top['target'].tolist() == y.tolist() and top['pred_1'].tolist() == z.argmax(1).tolist()
    assert CalibrationInterpretation.from_learner(learn, ds_idx=0).count == 100

@pytest.mark.parametrize('k', [0, -1, 1.5, 'a', True, 6])
def test_topk_refuses_k(k):
    with pytest.raises(ValueError, match='k='): learner(*softmax_data(20), CrossEntropyLossFlat()).topk(k=k)

def test_topk_refuses_what_is_no_distribution_an_item():
    z,y = softmax_data(20)
    with pytest.raises(ValueError, match='no probabilities'): learner(z, y, nn.CrossEntropyLoss()).topk()
    masks = learner(*seg_data(), CrossEntropyLossFlat(axis=1, ignore_index=255))
    with pytest.raises(ValueError, match='of shape'): masks.topk()

# ---- what the table says

@pytest.mark.parametrize('loss,data,n', [
    param(CrossEntropyLossFlat, partial(softmax_data, n=2), 2, id='two classes'),
    param(CrossEntropyLossFlat, softmax_data, 3, id='five classes'),
    param(BCEWithLogitsLossFlat, partial(multi_data, n=2), 2, id='two labels'),
    param(BCEWithLogitsLossFlat, partial(multi_data, n=1), 2, id='one logit')])
def test_topk_shows_three_or_as_many_as_there_are(loss, data, n):
    "A `k` that the user gives is not reduced"
    learn = learner(*data(), loss())
    assert list(learn.topk())[-1] == f'prob_{n}'
    if n < 3:
        with pytest.raises(ValueError, match='k=3: expected at most the n=2'): learn.topk(3)

@pytest.mark.parametrize('k', [np.int64(2), np.uint8(2)])
def test_topk_takes_numpy_integers(k):
    learn = learner(*softmax_data(), CrossEntropyLossFlat())
    pd.testing.assert_frame_equal(learn.topk(k), learn.topk(2))

def test_topk_says_where_items_come_from(tmp_path):
    z,y = softmax_data(6)
    learn = learner(z, y, CrossEntropyLossFlat())
    assert learn.topk().source.tolist() == learn.topk().index.tolist() == list(range(6)) # plain data: the position
    files = [tmp_path/f'{c}.pt' for c in 'fbdaec']
    at = files.index
    learn.dls = Datasets(files, [[lambda o: z[at(o)]], [lambda o: y[at(o)]]], splits=(range(6), range(6))).dataloaders(
        bs=4, shuffle=True, num_workers=0, device='cpu')
    for ds_idx in (0, 1): # in dataset order, though training shuffles
        top = learn.topk(k=1, ds_idx=ds_idx)
        assert top.source.tolist() == files and top.pred_1.tolist() == z.argmax(1).tolist()

def test_topk_joins_the_rows_of_a_dataframe():
    z,y = softmax_data(40)
    df = pd.DataFrame(dict(z=list(z), y=y, best=z.argmax(1)), index=np.random.default_rng(0).permutation(40)+100)
    block = DataBlock((TransformBlock, TransformBlock), get_x=lambda r: r.z, get_y=lambda r: tensor(r.y),
                      splitter=RandomSplitter(.5, seed=1))
    learn = learner(z, y, CrossEntropyLossFlat())
    learn.dls = block.dataloaders(df, bs=8, num_workers=0)
    top = learn.topk(1).join(df[['best']])
    assert len(top) == 20 and (top.pred_1 == top.best).all() and (df.best[top.source] == top.pred_1.to_numpy()).all()

class Sorted(DataLoader):
    "Its order is not the dataset's, like that of text"
    def get_idxs(self): return [i for i in range(self.n) if i%3] + [i for i in range(self.n) if not i%3]

def test_topk_and_losses_in_dataset_order():
    z,y = softmax_data(50)
    learn = learner(z, y, CrossEntropyLossFlat())
    dl = Sorted(list(zip(z, y)), bs=8, num_workers=0)
    top = learn.topk(dl=dl)
    assert top.target.tolist() == y.tolist() and top.index.tolist() == list(range(50))
    losses = F.cross_entropy(z.double(), y, reduction='none').numpy()
    assert top.loss.to_numpy() == pytest.approx(losses)
    assert CalibrationInterpretation.from_learner(learn, dl=dl).losses.numpy() == pytest.approx(losses, rel=1e-5)

@pytest.mark.parametrize('ignore', [-1, 255, -100])
def test_topk_has_no_name_for_an_ignored_target(ignore):
    z,y = softmax_data(20)
    y[::4] = ignore
    learn = learner(z, y, CrossEntropyLossFlat(ignore_index=ignore))
    learn.dls.vocab = list('abcde')
    top = learn.topk()
    assert top.target.isna().tolist() == top.loss.isna().tolist() == [i%4 == 0 for i in range(20)]
    assert [o for o in top.target if o is not None] == ['abcde'[i] for i in y[y != ignore]]

def test_topk_of_votes_names_the_majority():
    "Named by what most said, judged by what all said. A row of zeros is ignored"
    z,_ = softmax_data(30, 4)
    votes = torch.distributions.Dirichlet(torch.ones(4)).sample((30,))
    votes[3] = 0
    top = learner(z, votes, SoftCrossEntropyLossFlat()).topk()
    keep = np.arange(30) != 3
    assert top.target[keep].tolist() == votes[keep].argmax(1).tolist()
    assert top.target[3] is None and math.isnan(top.loss[3])
    losses = F.cross_entropy(z, votes, reduction='none').numpy()
    assert top.loss[keep].to_numpy() == pytest.approx(losses[keep], rel=1e-4)
    z,_ = multi_data(30)
    votes = torch.rand(30, 4)
    top = learner(z, votes, BCEWithLogitsLossFlat()).topk()
    assert top.target.tolist() == [';'.join(str(i) for i in range(4) if o[i] > .5) for o in votes]
    losses = F.binary_cross_entropy_with_logits(z, votes, reduction='none').mean(1).numpy()
    assert top.loss.to_numpy() == pytest.approx(losses, rel=1e-5)

def test_the_loss_is_that_of_the_probability_shown():
    z,y = softmax_data()
    learn = learner(z, y, CrossEntropyLossFlat())
    learn.calibrate(3.)
    top = learn.topk(5)
    ranks = [next(i for i in range(1, 6) if row[f'pred_{i}'] == row.target) for _,row in top.iterrows()]
    of_target = [row[f'prob_{i}'] for i,(_,row) in zip(ranks, top.iterrows())]
    assert top.loss.to_numpy() == pytest.approx(-np.log(of_target))
    weighted = learner(z, y, CrossEntropyLossFlat(weight=torch.arange(1., 6)))
    assert weighted.topk().loss.to_numpy() == pytest.approx(F.cross_entropy(z.double(), y, reduction='none').numpy())

class Own:
    "A loss of your own that cannot give item losses"
    soft_targets = True
    def __call__(self, z, y): return soft_cross_entropy(z, y)
    def activation(self, z): return z.softmax(1)
    def decodes(self, p): return p.argmax(1)

def test_a_loss_of_ones_own_needs_no_reduction():
    z,y = softmax_data()
    a,b = (learner(z, y, loss) for loss in (Own(), CrossEntropyLossFlat()))
    pd.testing.assert_frame_equal(a.topk(), b.topk())
    assert_close(*(CalibrationInterpretation.from_learner(o).losses for o in (a, b)))

def two_targets(targ_idx):
    z,y = softmax_data(40, 4)
    other = torch.randint(5, 90, (40,))
    ys = (y, other) if targ_idx%2 == 0 else (other, y)
    loss = SoftCrossEntropyLossFlat()
    class Loss:
        soft_targets = True
        axis,ignore_index,reduction = -1,-100,'mean'
        activation,decodes = loss.activation,loss.decodes
        def __call__(self, pred, a, b): return loss(pred, (a, b)[targ_idx])
    dls = DataLoaders(*[DataLoader(list(zip(z, *ys)), bs=16, num_workers=0) for _ in range(2)])
    dls.n_inp = 1
    learn = learner(z, y, Loss(), cbs=LabelSmooth(targ_idx=targ_idx))
    learn.dls = dls
    return learn,z,y

@pytest.mark.parametrize('targ_idx', [0, 1, -1])
def test_everything_reads_the_target_of_the_labelsmooth(targ_idx):
    learn,z,y = two_targets(targ_idx)
    a,b = list('abcd'),[str(i) for i in range(90)]
    learn.dls.vocab = [a, b] if targ_idx%2 == 0 else [b, a]
    assert learn.topk().target.tolist() == ['abcd'[i] for i in y]
    plain = learner(z, y, CrossEntropyLossFlat())
    assert temperature(learn) == pytest.approx(temperature(plain))
    table = compare({'a': learn, 'b': plain})
    assert table.a.to_numpy() == pytest.approx(table.b.to_numpy())
    learn.metrics = L(BrierScore())
    assert learn.validate()[1] == pytest.approx((z.softmax(1)-F.one_hot(y)).pow(2).sum(1).mean().item(), rel=1e-5)
    learn.label_smooth.targ_idx = 2
    with pytest.raises(ValueError, match='targ_idx=2'): learn.topk()

@pytest.mark.parametrize('targ_idx', [0, 1])
def test_topk_names_the_target_among_two_vocabularies_of_one_length(targ_idx):
    items = list(range(12))
    tfms = [[lambda i: torch.eye(3)[i%3]],
            [lambda i: 'abc'[i%3], Categorize()],
            [lambda i: 'xyz'[i%3], Categorize()]]
    dsets = Datasets(items, tfms, splits=(items, items), n_inp=1)
    dls = dsets.dataloaders(bs=4, num_workers=0, device='cpu')
    learn,*_ = two_targets(targ_idx)
    learn.dls = dls
    names = [('abc', 'xyz')[targ_idx][i%3] for i in items]
    assert learn.topk(1).target.tolist() == names
    assert learn.topk(1, dl=dls.test_dl(items)).pred_1.tolist() == names # without targets

def test_masked_classes_change_nothing():
    "A logit of -inf: a probability of 0, and nothing else"
    z,y = softmax_data(200)
    masked = torch.cat([z, torch.full((200, 2), -math.inf)], 1)
    a,b = (learner(o, y, CrossEntropyLossFlat()) for o in (z, masked))
    pd.testing.assert_frame_equal(a.topk(), b.topk())
    assert temperature(b) == pytest.approx(temperature(a), rel=1e-6)
    s,t = (CalibrationInterpretation.from_learner(o).summary().loc['all'].drop('classwise ECE') for o in (a, b))
    assert t.to_numpy() == pytest.approx(s.to_numpy())
    with pytest.raises(ValueError, match='logit is -inf'): temperature(learner(masked, y*0+5, CrossEntropyLossFlat()))

@pytest.mark.parametrize('loss', [CrossEntropyLossFlat, nn.CrossEntropyLoss, BCEWithLogitsLossFlat])
def test_the_likelihood_of_large_logits_is_exact(loss):
    "A sigmoid is 1 from 37 on, and the softmax of -746 is 0"
    sigmoid = loss is BCEWithLogitsLossFlat
    z = torch.tensor([[50.], [-800.], [1.]]) if sigmoid else torch.tensor([[800., 0.], [0., 50.], [1., 0.]])
    y = torch.tensor([[0.], [1.], [1.]]) if sigmoid else torch.tensor([1, 0, 0])
    learn = learner(z, y, loss())
    right = math.log1p(math.exp(-1))
    assert nll(learn) == pytest.approx((850+right)/3)
    if loss is not nn.CrossEntropyLoss: assert sorted(learn.topk(2).loss) == pytest.approx([right, 50, 800])
    learn.calibrate(2.)
    assert nll(learn) == pytest.approx((425+math.log1p(math.exp(-.5)))/3)

def test_wrong_targets_are_refused():
    z,y = softmax_data(20)
    votes = torch.rand(20, 5)
    for bad,match in ((y+5, 'class index'), (votes*.1, 'sum'), (votes+1, r'expected all of them in \[0, 1\]')):
        with pytest.raises(ValueError, match=match): learner(z, bad, SoftCrossEntropyLossFlat()).topk()

def test_a_torch_dataloader_that_shuffles_is_refused():
    items = digits(712)[512:] # those of validation
    learn = digits_learner()
    given = {k: torch.utils.data.DataLoader(items, batch_size=32, shuffle=k) for k in (True, False)}
    with pytest.raises(ValueError, match='shuffles'): learn.topk(dl=given[True])
    assert learn.topk(dl=given[False]).pred_1.tolist() == learn.topk().pred_1.tolist()

@pytest.mark.parametrize('loss', [
    param(nn.CrossEntropyLoss(label_smoothing=.1), id='module'),
    param(partial(F.cross_entropy, label_smoothing=.1), id='function')])
def test_topk_asks_for_fastais_loss_and_not_about_smoothing(loss):
    "As for any raw loss, the error asks for one with an activation; it does not speak of smoothing"
    with pytest.raises(ValueError, match="use fastai's, such as CrossEntropyLossFlat") as e:
        digits_learner(loss_func=loss).topk(k=10)
    assert 'twice' not in str(e.value)
