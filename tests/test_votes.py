"Votes as labels, through fastai's texts, tables and pictures, its metrics, and the results that are looked at"
import pickle, re
from collections import Counter
from copy import deepcopy
from fractions import Fraction
from unittest.mock import MagicMock
import matplotlib.pyplot as plt, numpy as np, pandas as pd, pytest, scipy.stats, sklearn.metrics as skm
import torch, torch.nn.functional as F
from hypothesis import given, strategies as st
from PIL import Image
from pytest import param
from torch.testing import assert_close
from fastai.text.all import *
from fastai.vision.all import *
from fastai.tabular.all import *
from fastai_labelsmooth.all import *
from fastai_labelsmooth.votes import TensorVotes, Votes, ReadVotes
from helpers import logits_learner, quiet, weights
import fastai.callback.fp16

names = ['low', 'middle', 'high']

def table(n=120, seed=0):
    "Items with a number, a word, and the votes of 1 to 20 people"
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1, n)
    p = np.stack([(1-x)**2, 2*x*(1-x), x**2], 1)
    counts = np.array([rng.multinomial(rng.integers(1, 21), o) for o in p])
    df = pd.DataFrame(counts, columns=names, index=[f'row{i}' for i in range(n)])
    return df.assign(x=x, word=[' '.join(['good']*int(9*o) + ['bad']*int(9-9*o)) for o in x], kind=['a', 'b']*(n//2))

def shares_of(df):
    "Each row's votes over their sum, without rounding in between"
    return torch.tensor([[float(Fraction(int(v), int(sum(r)))) for v in r] for r in df[names].to_numpy()])

def valid_last(df): return IndexSplitter(range(len(df)*3//4, len(df)))

def to_vector(row): return torch.tensor([row['x'], 1.], dtype=torch.float32)

def vector_block(df, cols=names):
    "The number as a vector of two, in a plain DataBlock, the votes in columns `cols`"
    return DataBlock((TransformBlock, VotesBlock(names)), get_x=to_vector, get_y=ColReader(cols),
                     splitter=valid_last(df))

def pair_block(valid):
    "Items that are pairs of input and votes, those at `valid` for validation"
    return DataBlock((TransformBlock, VotesBlock(names)), get_x=ItemGetter(0), get_y=ItemGetter(1),
                     splitter=IndexSplitter(valid))

def vector_learner(cbs=None, df=None, loss_func=None, **kwargs):
    df = table() if df is None else df
    dls = vector_block(df).dataloaders(df, bs=16, num_workers=0, device='cpu')
    set_seed(0)
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3))
    return quiet(Learner(dls, model, loss_func, cbs=cbs, **kwargs))

# Reading

counts = st.lists(st.integers(0, 1000), min_size=3, max_size=3).filter(any)

@given(counts)
def test_shares_are_counts_over_their_sum(votes):
    want = torch.tensor([float(Fraction(v, sum(votes))) for v in votes])
    read = ReadVotes(names)
    got = read(votes)
    assert type(got) is TensorVotes and got.dtype == torch.float32
    assert_close(torch.tensor(got.tolist()), want)
    in_order = [tuple(votes), np.array(votes), np.array(votes)/sum(votes), torch.tensor(votes), L(votes),
                pd.Series(votes)]
    by_name = [pd.Series(votes, names), pd.Series(votes[::-1], names[::-1]), dict(zip(names, votes)),
               Counter({k: v for k,v in zip(names, votes) if v})]
    for o in in_order+by_name: assert_close(torch.tensor(read(o).tolist()), want)

def test_an_annotator_who_gave_no_answer_does_not_count():
    df = pd.DataFrame(dict(ann=['low', None], bob=[np.nan, 'high'], cem=['high', 'high']))
    read = ReadVotes(names)
    assert [read(row.to_numpy()).tolist() for _,row in df.iterrows()] == [[.5, 0, .5], [0, 0, 1]]
    assert read(['low', pd.NA]).tolist() == [1, 0, 0]
    assert read(df.loc[0]).tolist() == [.5, 0, .5] # a Series, of which the index names annotators
    assert read(pd.Categorical(['low', 'high'])).tolist() == [.5, 0, .5]

@pytest.mark.parametrize('kind', [list, tuple, np.array, L], ids=lambda o: o.__name__)
def test_the_names_that_annotators_gave(kind):
    assert ReadVotes(names)(kind(['high', 'low', 'high'])).tolist() == pytest.approx([1/3, 0, 2/3])
    assert ReadVotes(['4', '9', '8'])(kind(['4', '9', '8'])).tolist() == pytest.approx([1/3]*3)
    counts = ReadVotes(['4', '9', '8'])(kind([4, 9, 8])) # numbers are counts
    assert counts.tolist() == pytest.approx([4/21, 9/21, 8/21])

@given(counts)
def test_names_come_most_first(votes):
    read = ReadVotes(names)
    named = read.decode(read(votes))
    assert sorted(named) == sorted(names) and list(named.values()) == sorted(named.values(), reverse=True)
    for k,v in zip(names, votes): assert named[k] == pytest.approx(v/sum(votes), abs=1e-6)
    assert next(iter(named)) == names[votes.index(max(votes))] # of equally many the first

def test_votes_in_words():
    assert str(ReadVotes(names).decode(TensorVotes([.05, .25, .7]))) == 'high 70%, middle 25%, low 5%'
    assert str(Votes(a=1., b=0., c=0.)) == 'a 100%'
    assert str(Votes({i: .25 for i in range(4)})) == '0 25%, 1 25%, 2 25%…'
    assert str(Votes({i: .001 for i in range(1000)})).startswith('0 0%, 1 0%, 2 0%')

@pytest.mark.parametrize('votes,error,said', [
    param([1, -1, 3], ValueError, "'middle': -1.0", id='below 0'),
    param([0, 0, 0], ValueError, "'middle': 0.0", id='none'),
    param([1, float('nan'), 1], ValueError, 'nan', id='nan'),
    param([1, float('inf'), 1], ValueError, 'inf', id='inf'),
    param([1, 2], ValueError, '[1, 2]', id='too few'),
    param(dict(low=1, hihg=2), ValueError, "'hihg'", id='unknown name'),
    param({}, ValueError, "'low': 0.0", id='empty dict'),
    param([[1], [2]], ValueError, '[[1], [2]]', id='nested'),
    param('low', ValueError, "'low'", id='a name'),
    param(3, ValueError, '3', id='a number'),
    param(['low', 'low', 'hihg'], ValueError, "'hihg'", id='unknown names'),
    param([None, None], ValueError, 'a list of the names', id='nobody answered'),
    param([1, 'low', 2], TypeError, 'numbers of votes, or the names', id='mixed'),
    param(None, ValueError, 'None', id='None')])
@pytest.mark.parametrize('where', [7, 19], ids=['training', 'validation'])
def test_bad_votes_name_item_and_value(votes, error, said, where):
    items = [(f'text {i}', [1, 2, 3]) for i in range(20)]
    items[where] = (f'text {where}', votes)
    with pytest.raises(error) as e: pair_block(range(15, 20)).dataloaders(items, num_workers=0)
    assert f"item {where} (('text {where}'" in str(e.value) and said in str(e.value) and 'expected' in str(e.value)

@pytest.mark.parametrize('value', [-1, np.nan])
def test_bad_columns_name_item_and_value(value):
    df = table()
    df['middle'] = df.middle.astype(float)
    df.loc['row100', 'middle'] = value
    says = rf"index 'row100'\): votes=.*{value}.*expected"
    with pytest.raises(ValueError, match=r'item 100 \('+says): vector_block(df).dataloaders(df)
    with pytest.raises(ValueError, match=says): tabular_dls(df)

def test_bad_votes_of_a_test_set():
    learn,df = vector_learner(),table()
    df.loc['row3', names] = 0
    dl = learn.dls.test_dl(df, with_labels=True, num_workers=0)
    with pytest.raises(ValueError, match="'middle': 0.0"): dl.one_batch()

@pytest.mark.parametrize('vocab,error', [
    param(['a'], ValueError, id='one name'),
    param(['a', 'b', 'a'], ValueError, id='a name twice'),
    param('abc', TypeError, id='text'),
    param({'a', 'b'}, TypeError, id='a set'),
    param([], ValueError, id='empty')])
def test_bad_vocab(vocab, error):
    with pytest.raises(error, match='vocab='): VotesBlock(vocab)

def test_columns_in_another_order():
    df,turned = table(),names[::-1]
    for cols in (turned, [list(df).index(o) for o in turned]):
        with pytest.raises(ValueError, match='expected the order of the vocab'): vector_block(df, cols).dataloaders(df)
    with pytest.raises(ValueError, match='expected the order of the vocab'): tabular_dls(df, y_names=turned)
    with pytest.raises(ValueError, match='expected 3 columns'): tabular_dls(df, y_names=names[:2])
    renamed = df.rename(columns=dict(low='n0', middle='n1', high='n2')) # their order is the user's word
    assert_close(tabular_dls(renamed, y_names=['n0', 'n1', 'n2']).valid.one_batch()[2], shares_of(df[90:106]))

# The loss

def test_the_data_bring_the_loss():
    learn,df = vector_learner(),table()
    assert isinstance(learn.loss_func, SoftCrossEntropyLossFlat)
    assert list(learn.dls.vocab) == names and get_c(learn.dls) == 3
    assert vector_learner().loss_func is not learn.loss_func # a temperature of one is none of the other's
    logits,targs = learn.get_preds(act=noop)
    assert type(learn.dls.one_batch()[1]) is TensorVotes
    assert_close(targs.as_subclass(Tensor), shares_of(df[90:]))
    want = F.cross_entropy(logits.double(), shares_of(df[90:]).double())
    assert learn.validate()[0] == pytest.approx(want.item(), rel=1e-5)
    probs,_,losses = learn.get_preds(with_loss=True)
    assert_close(probs, logits.softmax(1))
    assert losses.mean().item() == pytest.approx(want.item(), rel=1e-5)

class Spy(Callback):
    "What the loss was given, and what it said"
    run_valid = False
    def __init__(self): self.seen = []
    def before_batch(self): self.votes = self.y.as_subclass(Tensor).double()
    def after_loss(self): self.seen.append((self.pred.detach().double(), self.votes, self.loss.item()))

def test_training_is_that_of_torch():
    "On the same shares, by torch's own cross-entropy with probabilities"
    a,b = vector_learner(spy := Spy()),vector_learner(loss_func=nn.CrossEntropyLoss())
    for learn in (a, b):
        set_seed(1)
        learn.fit(3, 1e-2)
    assert_close(weights(a), weights(b), rtol=1e-4, atol=1e-6)
    for pred,votes,loss in spy.seen: assert loss == pytest.approx(F.cross_entropy(pred, votes).item(), rel=1e-5)

@pytest.mark.parametrize('mode', ['exact', 'paper'])
def test_votes_are_smoothed_further(mode):
    learn = vector_learner([LabelSmooth(.2, mode), spy := Spy()])
    learn.fit(2, 1e-2)
    on,off = on_off(.2, 3, mode)
    m = torch.full((3, 3), off).fill_diagonal_(on).double() # a vote for a class is one that LabelSmooth would smooth
    for pred,votes,loss in spy.seen: assert loss == pytest.approx(F.cross_entropy(pred, votes@m).item(), rel=1e-5)
    assert isinstance(learn.loss_func, VotesLossFlat)
    logits,targs = learn.get_preds(act=noop)
    assert learn.validate()[0] == pytest.approx(F.cross_entropy(logits, targs.as_subclass(Tensor)).item(), rel=1e-5)

def test_class_weights():
    w,df = torch.tensor([1., 2., 5.]),table()
    learn = vector_learner(loss_func=VotesLossFlat(weight=w))
    logits,y = learn.get_preds(act=noop)[0].double(),shares_of(df[90:]).double()
    each,item = F.cross_entropy(logits, y, reduction='none'),w[y.argmax(1)].double()
    want = ((each*item).sum()/item.sum()).item()
    assert learn.validate()[0] == pytest.approx(want, abs=.05) # fastai averages batches
    assert learn.validate()[0] != pytest.approx(each.mean().item(), abs=1e-3)

def test_more_votes_more_weight():
    "Items are drawn by their number of votes"
    df = table().assign(high=lambda o: o.high + 1000*(o.index == 'row3'))
    n_votes = df[names].sum(axis=1)
    dls = vector_block(df).weighted_dataloaders(df, wgts=n_votes.values, bs=16, num_workers=0)
    rare = np.mean([(x[:, 0] == np.float32(df.x['row3'])).float().mean() for _ in range(5) for x,_ in dls.train])
    assert rare == pytest.approx(n_votes['row3']/n_votes[:90].sum(), abs=.1)
    train = n_votes[:90]
    dls = tabular_dls(df, dl_kwargs=[{'wgts': train.values}, {}])
    share = np.mean([(y[:, 2] > .98).float().mean() for _ in range(5) for *_,y in dls.train])
    assert share == pytest.approx(train[df.high[:90]/train > .98].sum()/train.sum(), abs=.1)

# Mixing and precision

def pictures(n=64):
    "Pictures of noise, each with the votes of 9 people"
    rng = np.random.default_rng(0)
    def picture(): return torch.tensor(rng.normal(size=(1, 8, 8)), dtype=torch.float32)
    return [(picture(), rng.multinomial(9, [.2, .3, .5])) for _ in range(n)]

def picture_learner(cbs, **kwargs):
    dls = pair_block(range(48, 64)).dataloaders(pictures(), bs=16, num_workers=0, device='cpu')
    set_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
    return quiet(Learner(dls, model, cbs=cbs, metrics=on_majority(accuracy), **kwargs))

@pytest.mark.parametrize('smooth', [None, .2])
@pytest.mark.parametrize('mixer', [MixUp, CutMix])
def test_mixed_votes(mixer, smooth):
    "The loss is that of the mixture of both items' votes"
    mix,seen = mixer(),[]
    class Look(Callback):
        run_valid,order = False,LabelSmooth.order+1
        def after_loss(self):
            seen.append((self.pred.detach().double(), self.y, mix.yb1[0], mix.lam.double(), self.loss.item()))
    learn = picture_learner([mix, Look(), *([LabelSmooth(smooth)] if smooth else [])])
    learn.fit(2, 1e-3)
    on,off = on_off(smooth or 0, 3)
    m = torch.full((3, 3), off).fill_diagonal_(on).double()
    for pred,y,y1,lam,loss in seen:
        lam,(y,y1) = lam.view(-1, 1),(o.as_subclass(Tensor).double() for o in (y, y1))
        assert loss == pytest.approx(F.cross_entropy(pred, (lam*y + (1-lam)*y1)@m).item(), rel=1e-5)
    assert len(seen) == 6 and any((y-y1).abs().max() > .1 for _,y,y1,*_ in seen)
    assert isinstance(learn.loss_func, VotesLossFlat)

def test_bf16(monkeypatch):
    monkeypatch.setattr(fastai.callback.fp16, 'autocast', lambda device, **kw: torch.autocast('cpu', **kw))
    res,dtypes = [],[]
    for mixed in (False, True):
        learn = picture_learner(spy := Spy(), opt_func=SGD)
        learn.model[-1].register_forward_hook(lambda module, args, out: dtypes.append(out.dtype))
        if mixed: learn.to_bf16()
        set_seed(1)
        before = weights(learn)
        learn.fit(3, .1)
        for pred,votes,loss in spy.seen: assert loss == pytest.approx(F.cross_entropy(pred, votes).item(), rel=1e-5)
        res.append(weights(learn))
    assert dtypes == [torch.float32]*12 + [torch.bfloat16]*12 # 3 batches of training and 1 of validation in each epoch
    assert_close(*res, rtol=0, atol=2e-2)
    assert (res[0]-before).abs().max() > .03

# Metrics

def random_votes(n=50, seed=0):
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=(n, 3)),rng.dirichlet([1, 1, 1], n)
    logits,votes = (torch.tensor(o, dtype=torch.float32) for o in drawn)
    return logits,TensorVotes(votes)

class Confused(Metric):
    "A metric with a state of its own"
    def reset(self): self.pairs = []
    def accumulate(self, learn): self.pairs += zip(learn.y.tolist(), learn.pred.argmax(1).tolist())
    @property
    def value(self): return sum(a != b for a,b in self.pairs)

def test_metrics_of_hard_targets_see_the_majority():
    cohen = skm_to_fastai(skm.cohen_kappa_score)
    metrics = [accuracy, error_rate, partial(top_k_accuracy, k=2), F1Score(average='macro'), cohen, RocAuc(), Confused]
    learn = vector_learner(metrics=[on_majority(o) for o in metrics])
    shown = learn.recorder.metrics.attrgot('name')[:5]
    assert shown == ['accuracy', 'error_rate', 'top_k_accuracy', 'f1_score', 'cohen_kappa_score']
    learn.fit(3, 1e-2)
    got = list(learn.recorder.values[-1][2:])
    probs,targs = (o.numpy() for o in learn.get_preds())
    pred,hard = probs.argmax(1),np.array([list(o).index(max(o)) for o in targs])
    assert 0 < (pred == hard).mean() < 1 and len({*hard}) == 3
    top2 = np.mean([h in np.argsort(-p)[:2] for p,h in zip(probs, hard)])
    want = [(pred == hard).mean(), (pred != hard).mean(), top2, skm.f1_score(hard, pred, average='macro'),
            skm.cohen_kappa_score(hard, pred), skm.roc_auc_score(hard, probs, multi_class='ovr'), (pred != hard).sum()]
    assert got == pytest.approx(want, abs=1e-5)

def test_majority_of_ties_and_of_hard_targets():
    logits = torch.eye(3)
    ties = TensorVotes([[.5, .5, 0.], [0., .5, .5], [1/3, 1/3, 1/3]])
    assert on_majority(accuracy)(logits, ties) == pytest.approx(2/3)
    assert on_majority(accuracy)(logits, torch.tensor([0, 1, 0])) == pytest.approx(2/3)
    assert on_majority(accuracy)(logits, ties.as_subclass(Tensor)) == pytest.approx(2/3) # a table's

def test_votes_come_back_after_a_metric_that_fails():
    class Fails(Metric):
        def reset(self): pass
        def accumulate(self, learn): raise RuntimeError('as it should')
    learn = vector_learner(metrics=on_majority(Fails()))
    with pytest.raises(RuntimeError, match='as it should'): learn.validate()
    assert learn.y.dtype == torch.float32 and learn.y.shape == learn.pred.shape

def test_a_learner_that_was_fitted_with_them_can_be_copied():
    "As its twins in `oof_preds` are"
    learn = vector_learner(metrics=[on_majority(accuracy), VotesKL(), EntropyCorrelation()])
    learn.fit(1)
    assert deepcopy(learn.metrics[1]).value == pytest.approx(learn.metrics[1].value)
    with pytest.warns(UserWarning, match='trained already'): preds,votes = learn.oof_preds(1, folds=2)
    assert preds.shape == votes.shape and votes.sum(1).allclose(torch.ones(len(votes)))

def test_without_on_majority_it_is_an_error():
    pred,votes = random_votes()
    for metric in (accuracy, F1Score(average='macro'), mse):
        with pytest.raises(TypeError, match='on_majority'): metric(pred, votes)
    for learn in (vector_learner(), tab_learner()):
        interp = ClassificationInterpretation.from_learner(learn)
        with pytest.raises(TypeError, match='argmax'): interp.confusion_matrix()

@pytest.mark.parametrize('seed', range(3))
def test_kl_and_entropy_correlation(seed):
    pred,votes = random_votes(seed=seed)
    votes[0] = torch.tensor([0., 1., 0.])
    p,q = pred.double().softmax(1).numpy(),votes.numpy()
    assert VotesKL()(pred, votes) == pytest.approx(scipy.stats.entropy(q, p, axis=1).mean(), rel=1e-5)
    want = scipy.stats.pearsonr(scipy.stats.entropy(p, axis=1), scipy.stats.entropy(q, axis=1)).statistic
    assert EntropyCorrelation()(pred, votes) == pytest.approx(want, abs=1e-5)
    assert VotesKL()(votes.log().clamp(-30), votes) == pytest.approx(0, abs=1e-5)
    for metric in (VotesKL(), EntropyCorrelation()):
        with pytest.raises(ValueError, match='expected votes'): metric(pred, votes.argmax(1))
        with pytest.raises(ValueError, match='expected votes'): metric(pred[:, :2], votes)

def test_kl_of_unequal_batches():
    "It is of all items, not of batches"
    learn = vector_learner(metrics=[VotesKL(), EntropyCorrelation()])
    assert len({len(y) for _,y in learn.dls.valid}) > 1
    p,q = (o.numpy() for o in learn.get_preds())
    assert learn.validate()[1] == pytest.approx(scipy.stats.entropy(q, p, axis=1).mean(), rel=1e-5)
    assert EntropyCorrelation().name == 'entropy_corr' and VotesKL().name == 'votes_kl'

# Tables

def tabular_dls(df, y_names=names, **kwargs):
    return TabularDataLoaders.from_df(df, procs=[Categorify, Normalize], cat_names=['kind'], cont_names=['x'],
                                      y_names=y_names, y_block=VotesBlock(names), valid_idx=list(range(90, 120)),
                                      bs=16, device='cpu', **kwargs)

def tab_learner(df=None):
    set_seed(0)
    dls = tabular_dls(table() if df is None else df)
    return quiet(tabular_learner(dls, layers=[8], metrics=[on_majority(accuracy), VotesKL()]))

def test_a_table(monkeypatch, tmp_path):
    df = table()
    learn = tab_learner(df)
    assert isinstance(learn.loss_func, VotesLossFlat) and list(learn.dls.vocab) == names and learn.dls.c == 3
    learn.fit(4, 1e-2)
    first,*_,last = [list(o) for o in learn.recorder.values]
    assert last[1] < first[1]
    probs,targs = learn.get_preds()
    assert_close(targs, shares_of(df[90:]))
    assert last[2] == pytest.approx((probs.argmax(1) == targs.argmax(1)).float().mean().item())
    shown = MagicMock()
    monkeypatch.setattr('fastai.tabular.core.display_df', shown)
    monkeypatch.setattr('fastai.tabular.learner.display_df', shown)
    learn.dls.valid.show_batch(max_n=4)
    learn.show_results(max_n=4, shuffle=False)
    batch,results = (o.args[0] for o in shown.call_args_list)
    assert_close(torch.tensor(batch[names].to_numpy(dtype=np.float32)), shares_of(df[90:100]))
    assert_close(torch.tensor(results[[o+'_pred' for o in names]].to_numpy(dtype=np.float32)), probs[:4])
    for row in (df.iloc[95], df.iloc[95].drop(names)):
        decoded,_,p = learn.predict(row)
        assert_close(p, probs[5])
        assert decoded.items[names].iloc[0].tolist() == pytest.approx(p.tolist(), abs=1e-5)
    for labelled in (df[90:], df[90:].drop(columns=names)):
        p,t = learn.get_preds(dl=learn.dls.test_dl(labelled))
        assert_close(p, probs)
        assert t is None if 'low' not in labelled else t.equal(targs)
    learn.export(tmp_path/'table.pkl')
    assert_close(load_learner(tmp_path/'table.pkl').predict(df.iloc[95])[2], probs[5])

# Texts

@pytest.fixture(scope='module')
def text():
    df = table()
    dls = TextDataLoaders.from_df(df, text_col='word', label_col=names, y_block=VotesBlock(names), seed=0, bs=16,
                                  num_workers=0)
    set_seed(0)
    config = {**awd_lstm_clas_config, 'emb_sz': 8, 'n_hid': 8, 'n_layers': 1}
    learn = quiet(text_classifier_learner(dls, AWD_LSTM, config=config, pretrained=False, cbs=LabelSmooth(.1),
                                          metrics=[on_majority(accuracy), VotesKL()]))
    learn.fit(1, 1e-2)
    return learn,df

percents = re.compile(r'^(low|middle|high) \d+%(, (low|middle|high) \d+%)*$')

def in_words(shares): return str(ReadVotes(names).decode(TensorVotes(shares)))

def test_texts(text, monkeypatch):
    learn,df = text
    assert list(learn.dls.vocab[-1]) == names and isinstance(learn.loss_func, VotesLossFlat)
    probs,targs = learn.get_preds()
    assert_close(targs.as_subclass(Tensor), shares_of(learn.dls.valid_ds.items))
    shown = MagicMock()
    monkeypatch.setattr('fastai.text.data.display_df', shown)
    monkeypatch.setattr('fastai_labelsmooth.votes.display_df', shown)
    learn.dls.valid.show_batch(max_n=4)
    learn.show_results(max_n=4, shuffle=False)
    batch,results = (o.args[0] for o in shown.call_args_list)
    assert list(batch) == ['text', 'votes'] and list(results) == ['text', 'votes', 'votes_']
    assert all(percents.match(o) for o in batch.votes)
    order = learn.dls.valid.get_idxs()[:4]
    assert list(results.votes) == [in_words(targs[i]) for i in order]
    assert list(results.votes_) == [in_words(probs[i]) for i in order]
    votes,shares,p = learn.predict(df.word[learn.dls.valid_ds.items.index[0]])
    assert_close(p, probs[0], rtol=1e-4, atol=1e-5)
    assert_close(shares.as_subclass(Tensor), p)
    assert votes == {k: v for k,v in zip(names, p.tolist())} and percents.match(str(votes))

def test_texts_exported(text, tmp_path):
    learn,df = text
    learn.export(tmp_path/'text.pkl')
    loaded = load_learner(tmp_path/'text.pkl')
    assert_close(loaded.predict('good good bad')[2], learn.predict('good good bad')[2])
    assert str(loaded.predict('good good bad')[0]) == str(learn.predict('good good bad')[0])

@pytest.mark.parametrize('labels', [False, True])
def test_texts_of_a_test_set(text, labels):
    learn,df = text
    items = learn.dls.valid_ds.items # tokenized already, as fastai wants of a table with labels
    if not labels: items = df.word[items.index].tolist()
    dl = learn.dls.test_dl(items, with_labels=labels, num_workers=0)
    probs,targs = learn.get_preds(dl=dl)
    assert_close(probs, learn.get_preds()[0], rtol=1e-4, atol=1e-5)
    assert targs.equal(learn.get_preds()[1]) if labels else targs is None
    if labels: assert list(learn.validate(dl=dl)) == pytest.approx(list(learn.validate()), rel=1e-4)

# Pictures

@pytest.fixture(scope='module')
def vision(tmp_path_factory):
    path,df = tmp_path_factory.mktemp('pictures'),table(40)
    df = df.assign(file=[f'{o}.png' for o in df.index])
    for file,x in zip(df.file, df.x): Image.fromarray(np.full((32, 32, 3), int(255*x), dtype=np.uint8)).save(path/file)
    dls = ImageDataLoaders.from_df(df, path, fn_col='file', label_col=names, y_block=VotesBlock(names), seed=0, bs=8,
                                   num_workers=0, device='cpu', batch_tfms=aug_transforms(size=32))
    set_seed(0)
    learn = quiet(vision_learner(dls, resnet18, pretrained=False, metrics=on_majority(accuracy)))
    learn.fit(1, 1e-3)
    return learn,df,path

def test_pictures(vision):
    learn,df,path = vision
    assert isinstance(learn.loss_func, VotesLossFlat) and learn.model[1][-1].out_features == 3
    learn.dls.show_batch(max_n=4)
    titles = [ax.get_title() for ax in plt.gcf().axes if ax.get_title()]
    assert len(titles) == 4 and all(percents.match(o) for o in titles)
    learn.show_results(max_n=4, shuffle=False)
    titles = [ax.get_title().split('\n') for ax in plt.gcf().axes if ax.get_title()]
    plt.close('all')
    probs,targs = learn.get_preds()
    assert titles == [[in_words(targs[i]), in_words(probs[i])] for i in range(4)]
    assert_close(targs.as_subclass(Tensor), shares_of(learn.dls.valid_ds.items))
    votes,_,p = learn.predict(path/learn.dls.valid_ds.items.file.iloc[0])
    assert_close(p, probs[0])
    assert votes == dict(zip(names, p.tolist()))

def test_pictures_of_a_test_set(vision):
    learn,df,path = vision
    probs,targs = learn.get_preds()
    items = learn.dls.valid_ds.items
    p,t = learn.get_preds(dl=learn.dls.test_dl(items, with_labels=True))
    assert_close(p, probs)
    assert t.equal(targs)
    p,t = learn.get_preds(dl=learn.dls.test_dl([path/o for o in items.file]))
    assert_close(p, probs)
    assert t is None

# Other losses, and labels that are each on or off

def test_a_loss_that_decodes_to_a_class():
    learn = vector_learner(LabelSmooth(0), loss_func=CrossEntropyLossFlat())
    votes,index,probs = learn.predict(table().iloc[0])
    assert votes == {names[probs.argmax()]: 1.} and index == probs.argmax()

def test_shares_of_sigmoid_labels():
    "fastai's own block takes them"
    items = [(torch.randn(2), [.2, 1., .5]) for _ in range(20)]
    blocks = TransformBlock,MultiCategoryBlock(encoded=True, vocab=names)
    block = DataBlock(blocks, get_x=ItemGetter(0), get_y=ItemGetter(1))
    dls = block.dataloaders(items, bs=4, num_workers=0)
    learn = quiet(Learner(dls, nn.Linear(2, 3), cbs=LabelSmooth(.1)))
    assert type(learn.loss_func) is BCEWithLogitsLossFlat
    assert_close(dls.one_batch()[1].as_subclass(Tensor), torch.tensor([[.2, 1., .5]]*4))
    learn.fit(1)

def test_pickles():
    votes = TensorVotes([.1, .9])
    again = pickle.loads(pickle.dumps(votes))
    assert type(again) is TensorVotes and again.equal(votes)
    metric = pickle.loads(pickle.dumps(on_majority(accuracy)))
    assert metric.name == 'accuracy' and metric(torch.eye(2), TensorVotes([[.6, .4], [.6, .4]])) == .5
    assert deepcopy(votes).equal(votes)

# Looking at the result: the rooms of `interpret`

def test_topk_of_votes():
    learn,df = vector_learner(),table()
    top = learn.topk(k=2)
    probs,targs,losses = learn.get_preds(with_loss=True)
    assert list(top.target) == [names[i] for i in shares_of(df[90:]).argmax(1)]
    assert list(top.pred_1) == [names[i] for i in probs.argmax(1)]
    assert_close(torch.tensor(top.loss.values), losses, check_dtype=False)
    assert 'target' not in learn.topk(dl=learn.dls.test_dl(df, num_workers=0))

def test_temperature_of_votes():
    "It has the smallest cross-entropy with the votes, not with the majority"
    learn = vector_learner()
    learn.fit(5, 1e-2)
    logits,votes = (o.as_subclass(Tensor).double() for o in learn.get_preds(act=noop))
    temps = np.geomspace(.05, 20, 2000)
    def best(y): return temps[np.argmin([F.cross_entropy(logits/t, y).item() for t in temps])]
    by_votes,by_majority = best(votes),best(votes.argmax(1))
    assert temperature(learn) == pytest.approx(by_votes, rel=.01)
    assert abs(by_votes/by_majority-1) > .05
    nll = CalibrationInterpretation.from_learner(learn).summary().loc['all', 'negative log-likelihood']
    assert nll == pytest.approx(F.cross_entropy(logits, votes).item(), rel=1e-5)

def test_logits_are_not_read_as_shares():
    "A raw torch loss has no activation, so its predictions are logits"
    read = ReadVotes(['a', 'b', 'c'])
    with pytest.raises(ValueError, match='no distribution.*VotesLossFlat'): read.decode(TensorVotes([-.22, .28, -.04]))

def test_votes_kl_with_a_masked_class():
    "No mass on an impossible class costs nothing"
    pred,votes = torch.tensor([[1., -math.inf, 0.]]),torch.tensor([[.5, 0., .5]])
    p = pred[0, [0, 2]].softmax(0)
    assert VotesKL().func(pred, votes) == pytest.approx((-(.5*p.log()).sum() - math.log(2)).item(), abs=1e-6)

def test_very_many_votes_do_not_overflow():
    assert ReadVotes(['a', 'b'])([1e308, 1e308]).tolist() == [.5, .5]

def test_a_metric_of_hard_targets_says_what_to_take():
    "In a Learner, where fastai casts targets to plain tensors"
    learn = picture_learner([])
    learn.metrics = accuracy
    with pytest.raises(TypeError, match=r'on_majority\(metric\)'): learn.fit(1)
    learn.metrics = on_majority(accuracy)
    learn.fit(1)

@pytest.mark.parametrize('make', [lambda cbs: vector_learner(cbs, metrics=accuracy), lambda cbs: quiet(tabular_learner(
    tabular_dls(table()), layers=[8], metrics=accuracy, cbs=cbs))], ids=['vectors', 'table'])
def test_with_labelsmooth_it_says_so_before_the_first_epoch(make):
    "Of a table's votes, which are plain tensors, too"
    learn = make(LabelSmooth(.1))
    with pytest.raises(TypeError, match=r'the metric accuracy takes class indices: expected on_majority\(accuracy\)'):
        learn.fit(1)
    for metric in (error_rate, partial(top_k_accuracy, k=2), F1Score(average='macro')):
        learn.metrics = L(metric)
        with pytest.raises(TypeError, match='expected on_majority'): learn.fit(1)
    own = lambda pred, votes: pred.mean()
    learn.metrics = L(on_majority(accuracy), VotesKL(), on_majority(F1Score(average='macro')), own)
    learn.fit(1)

# Votes for several labels

def several(n=200):
    "Logits and shares of people for four labels each"
    z = torch.randn(n, 4)*2
    return z,((z/2).sigmoid()+torch.randn(n, 4)*.2).clamp(0, 1)

@pytest.mark.parametrize('loss', [BCEWithLogitsLossFlat, nn.BCEWithLogitsLoss, SoftBCEWithLogitsLossFlat])
def test_the_majority_of_several_labels(loss):
    "More than half of the people, not the label that most gave"
    z,y = several()
    learn = logits_learner(z, y, loss(), cbs=LabelSmooth(.1))
    learn.metrics = L(on_majority(accuracy_multi), on_majority(F1ScoreMulti(average='macro')))
    want = skm.accuracy_score((y > .5).flatten(), (z > 0).flatten()),skm.f1_score(y > .5, z > 0, average='macro')
    assert list(learn.validate()[1:]) == pytest.approx(list(want))
    assert on_majority(accuracy_multi)(z, y) == pytest.approx(want[0])

def test_the_majority_of_one_label():
    z,y = (o[:, 0] for o in several())
    for a,b in ((z, y), (z[:, None], y[:, None])):
        learn = logits_learner(a, b, BCEWithLogitsLossFlat())
        learn.metrics = L(on_majority(accuracy_multi))
        want = ((z > 0) == (y > .5)).float().mean().item()
        assert learn.validate()[1] == on_majority(accuracy_multi)(a, b) == pytest.approx(want)

def test_equally_many_votes_are_no_majority():
    assert on_majority(accuracy_multi)(torch.tensor([[-1., -1.]]), torch.tensor([[.5, .4]])) == 1

def test_the_majority_of_labels_of_which_some_are_unknown():
    z,y = several()
    y[torch.rand(y.shape) < .3] = math.nan
    known = ~y.isnan()
    learn = logits_learner(z, y, SoftBCEWithLogitsLossFlat())
    learn.metrics = L(on_known(on_majority(accuracy_multi)), on_majority(on_known(accuracy_multi)))
    want = skm.accuracy_score(y[known] > .5, z[known] > 0)
    assert list(learn.validate()[1:]) == pytest.approx([want]*2)

# The worst predictions

def test_top_losses_of_pictures(vision):
    learn,df,path = vision
    probs,targs,losses = learn.get_preds(with_loss=True)
    for interp in (Interpretation, CalibrationInterpretation):
        interp.from_learner(learn).plot_top_losses(3)
        titles = [ax.get_title() for ax in plt.gcf().axes]
        plt.close('all')
        worst = losses.argsort(descending=True)[:3]
        assert titles == [f'{in_words(targs[i])}\n{in_words(probs[i])}\nloss {losses[i]:.2f}' for i in worst]

def test_top_losses_of_texts(text, monkeypatch):
    learn,df = text
    shown = MagicMock()
    monkeypatch.setattr('fastai_labelsmooth.votes.display_df', shown)
    probs,targs,losses = learn.get_preds(with_loss=True)
    worst = losses.argsort(descending=True)[:4]
    for interp in (Interpretation, CalibrationInterpretation):
        interp.from_learner(learn).plot_top_losses(4, trunc_at=3)
        res = shown.call_args[0][0]
        assert list(res) == ['text', 'votes', 'votes_', 'loss'] and res.text.str.split().str.len().max() == 3
        assert res.loss.astype(float).to_numpy() == pytest.approx(losses[worst].numpy(), rel=1e-4)
        for name,shares in (('votes', targs), ('votes_', probs)):
            assert set(res[name]) == {in_words(shares[i]) for i in worst}
