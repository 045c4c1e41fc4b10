"Trainings that run again: they train on what `fit` trains on, touch nothing of the user's, and refuse in words"
import pickle, threading
import numpy as np, pandas as pd, pytest, torch
import torch.nn.functional as F
from torch import nn, tensor
from torch.utils.data import IterableDataset, DataLoader as TorchDataLoader, Dataset
from fastai.basics import *
from fastai.callback.data import CollectDataCallback, PartialDL, WeightedDL
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.hook import ActivationStats
from fastai.callback.mixup import MixUp
from fastai.callback.progress import CSVLogger, ProgressCallback, ShowGraphCallback
from fastai.callback.rnn import ModelResetter
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback, TrackerCallback
from fastai.callback.training import GradientAccumulation, GradientClip, ShortEpochCallback
from fastai.data.all import CategoryBlock, DataBlock, IndexSplitter, TransformBlock
from fastai.data.load import SkipItemException
from fastai.tabular.all import TabularPandas
from fastai.text.all import AWD_LSTM, SortedDL, TextDataLoaders, awd_lstm_lm_config, language_model_learner
from sklearn.datasets import load_digits
from fastai_labelsmooth.all import *
from fastai_labelsmooth.wrong_labels.issues import fold_of
from fastai_labelsmooth.wrong_labels.refit import keep_items, refits, twin
from helpers import quiet, weights

# A small learner of digits, of which each item says in its first pixel which it is

digits = load_digits()
labels = tensor(digits.target[:120])

def vectors(n=120):
    x = tensor(digits.data[:n]).float()/16
    x[:, 0] = torch.arange(n)/1000
    return x

items = list(zip(vectors(), labels))

def position(x): return (x[..., 0]*1000).round().int().tolist()

class Linear(nn.Linear):
    "A model that does not look at the first pixel, and at the first of several inputs only"
    def __init__(self, n=10): super().__init__(64, n)
    def forward(self, x, *others): return super().forward(torch.cat([x[:, :1]*0, x[:, 1:]], 1))

def learner(train=items, loss_func=None, model=None, valid=items[:40], **kwargs):
    "`train` and `valid`: items, or a DataLoader"
    set_seed(0)
    if isinstance(train, list): train = DataLoader(train, bs=16, shuffle=True, num_workers=0)
    if isinstance(valid, list): valid = DataLoader(valid, bs=40, num_workers=0)
    return quiet(Learner(DataLoaders(train, valid), model or Linear(), loss_func or CrossEntropyLossFlat(), **kwargs))

class Drawn(Callback):
    "The items of each training, batch by batch"
    log = []
    def before_fit(self):
        if not hasattr(self, 'gather_preds'): Drawn.log.append([])
    def before_batch(self):
        if self.training: Drawn.log[-1].append(position(self.xb[0]))

@pytest.fixture(autouse=True)
def _log(): Drawn.log = []

calls = {
    'eps_find': lambda learn: learn.eps_find(1, 1e-2, eps=[0., .1], show_plot=False),
    'eps_find once': lambda learn: learn.eps_find(1, 1e-2, show_plot=False),
    'oof_preds': lambda learn: learn.oof_preds(1, 1e-2, folds=2),
    'label_issues': lambda learn: learn.label_issues(1, 1e-2, folds=2),
}
each_call = pytest.mark.parametrize('call', list(calls))

# Files

class SavesByItself(Callback):
    "A callback of one's own that writes to an absolute name"
    def __init__(self, path): self.file = path
    def after_epoch(self): self.learn.save(self.file)

class OwnLogger(CSVLogger): pass

@each_call
def test_no_file_is_written(call, tmp_path, capsys):
    saves = SaveModelCallback(fname='best'),SavesByItself(tmp_path/'mine')
    logs = CSVLogger(tmp_path/'log.csv'),OwnLogger('own.csv')
    learn = learner(cbs=[*saves, *logs], model_dir=tmp_path, path=tmp_path)
    learn.fit(1)
    before = {f: f.read_bytes() for f in tmp_path.rglob('*') if f.is_file()}
    assert {f.name for f in before} == {'best.pth', 'log.csv', 'own.csv', 'mine.pth'}
    capsys.readouterr()
    calls[call](learn)
    assert {f: f.read_bytes() for f in tmp_path.rglob('*') if f.is_file()} == before
    assert capsys.readouterr().out == ''

# What a twin takes along

class Own(Callback): pass
class OwnTracker(TrackerCallback): pass

@pytest.mark.parametrize('cb,is_taken', [
    (MixUp(), True), (GradientClip(), True), (GradientAccumulation(), True), (ShortEpochCallback(), True),
    (ModelResetter(), True),
    (MixedPrecision(), True), (LabelSmooth(), True), (Own(), True), (OwnTracker(), True),
    (SaveModelCallback(), False), (EarlyStoppingCallback(), False), (ReduceLROnPlateau(), False),
    (CSVLogger(), False), (OwnLogger(), False), (ProgressCallback(), False), (ShowGraphCallback(), False),
    (CollectDataCallback(), False), (FetchPredsCallback(), False), (ActivationStats(), False)], ids=lambda o: repr(o))
def test_a_twin_takes_along_what_shapes_training(cb, is_taken, tmp_path):
    learn = learner()
    learn.add_cb(cb)
    res = twin(learn, tmp_path)
    assert any(type(o) is type(cb) for o in res.cbs) == is_taken
    assert not set(map(id, res.cbs)) & set(map(id, learn.cbs))
    assert all(o.learn is res for o in res.cbs)

def no_recorder(learn): learn.remove_cb(Recorder)
def train_metrics(learn): learn.recorder.train_metrics = True
def no_valid_metrics(learn): learn.recorder.valid_metrics = False

@pytest.mark.parametrize('change', [no_recorder, train_metrics, no_valid_metrics])
@each_call
def test_any_recorder(call, change):
    learn = learner(metrics=accuracy)
    change(learn)
    res = calls[call](learn)
    if call == 'eps_find':
        assert list(res.table.columns) == ['nll', 'accuracy']
        assert res.table.accuracy.between(0, 1).all()

class Holds(Callback):
    def __init__(self, o): self.o = o

def generator(): yield 1

class HoldsMetric(Metric):
    name = 'holds'
    def __init__(self): self.lock = threading.Lock()

def bad_model():
    res = Linear()
    res.lock = threading.Lock()
    return res

def bad_dl(): return DataLoader(items, bs=16, num_workers=0, shuffle=True, after_item=Holds(threading.Lock()))

@pytest.mark.parametrize('name,make', [
    ('callback Holds', lambda: dict(cbs=Holds(threading.Lock()))),
    ('callback Holds', lambda: dict(cbs=Holds(generator()))),
    ('callback Holds', lambda: dict(cbs=Holds(open(__file__)))),
    ('learn.metrics', lambda: dict(metrics=HoldsMetric())),
    ('learn.model', lambda: dict(model=bad_model())),
    ('the DataLoader', lambda: dict(train=bad_dl()))], ids=['lock', 'generator', 'file', 'metric', 'model', 'dl'])
@each_call
def test_what_cannot_be_copied_is_named_before_anything_is_trained(call, name, make):
    learn = learner(**make())
    learn.add_cb(Drawn())
    with pytest.raises(TypeError, match=f'{name}.*cannot be copied'): calls[call](learn)
    assert not Drawn.log

class KeepsPred(Callback):
    def after_pred(self): self.preds = [self.pred]

class Stops(Callback):
    def before_backward(self): raise KeyboardInterrupt

def test_a_learner_that_was_interrupted():
    learn = learner(cbs=KeepsPred())
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=Stops())
    assert not learn.loss_grad.is_leaf and not learn.keeps_pred.preds[0].is_leaf
    learn.oof_preds(1, folds=2)

class CountsOnLearner(Callback):
    "Keeps a list on the Learner"
    def before_fit(self):
        if not hasattr(self.learn, 'counts'): self.learn.counts = []
    def after_batch(self): self.learn.counts.append(1)

def test_lists_on_the_learner_are_its_own():
    learn = learner(cbs=CountsOnLearner())
    learn.fit(1)
    n = len(learn.counts)
    calls['eps_find'](learn)
    assert len(learn.counts) == n

def test_an_optimizer_that_was_made_beforehand():
    model = Linear()
    learn = learner(model=model, opt_func=OptimWrapper(opt=torch.optim.SGD(model.parameters(), lr=.1)))
    learn.fit(1)
    before = weights(learn)
    with refits(learn, 1, 1, .1) as fit: res = fit()
    assert torch.equal(weights(learn), before) and not torch.equal(weights(res), before)

class NeedsTraining(Callback):
    "Fails where it predicts before it has trained"
    def before_train(self): self.n = 0
    def after_batch(self): self.n += 1

@each_call
def test_a_callback_that_cannot_predict_before_it_has_trained(call): calls[call](learner(cbs=NeedsTraining()))

# The data: drawn as in `fit`

def weights_of_nines(): return np.where(labels == 9, 50., 1.)

class Balanced(DataLoader):
    "A sampler of one's own, with an argument and what it knows of each item"
    def __init__(self, dataset, power, **kwargs):
        super().__init__(dataset, **kwargs)
        self.sampler = {i: w**power for i,w in enumerate(weights_of_nines())}
    def get_idxs(self):
        p = np.array([self.sampler[i] for i in range(len(self.dataset))])
        return np.random.choice(len(p), len(p), p=p/p.sum()).tolist()

class Half(DataLoader):
    "Half of the items, the same in each epoch"
    def get_idxs(self): return list(range(0, 120, 2))
    def __len__(self): return 4

def table():
    df = pd.DataFrame(vectors().numpy(), columns=[f'x{i}' for i in range(64)])
    df['y'] = [f'd{y}' for y in labels.tolist()]
    return df

def tabular(**kwargs):
    df = table()
    to = TabularPandas(df, cont_names=list(df.columns[:64]), y_names='y', splits=(list(range(120)), list(range(40))))
    return to.dataloaders(bs=16, **kwargs)

class TabLinear(Linear):
    def forward(self, cats, conts): return super().forward(conts)

def block(**kwargs):
    return DataBlock((TransformBlock, CategoryBlock(vocab=list(range(10)))), splitter=IndexSplitter(range(120, 160)),
                     get_x=lambda i: items[i%120][0], get_y=lambda i: int(items[i%120][1]), **kwargs)

def weighted_block(): return block().weighted_dataloaders(range(160), np.tile(weights_of_nines(), 2)[:160], **_small)
def partial_block(): return block().datasets(range(160)).partial_dataloaders(partial_n=32, **_small)

_small = dict(bs=16, num_workers=0)

def _dl(cls, dataset=items, **kwargs): return cls(dataset, bs=16, num_workers=0, **{'shuffle': True, **kwargs})

loaders = {
    'plain': lambda: _dl(DataLoader),
    'tensors': lambda: _dl(DataLoader, torch.utils.data.TensorDataset(vectors(), labels)),
    'in order': lambda: _dl(DataLoader, shuffle=False),
    'drop_last': lambda: _dl(DataLoader, drop_last=True),
    'fewer': lambda: _dl(DataLoader, n=60),
    'datasets': lambda: block().dataloaders(range(160), bs=16, num_workers=0).train,
    'weighted': lambda: _dl(WeightedDL, wgts=weights_of_nines()),
    'weighted datasets': lambda: weighted_block().train,
    'partial': lambda: _dl(PartialDL, partial_n=32),
    'partial datasets': lambda: partial_block().train,
    'sorted': lambda: _dl(SortedDL, sort_func=lambda o: float(o[0][20])),
    'table': lambda: tabular().train,
    'weighted table': lambda: tabular(dl_kwargs=[dict(wgts=weights_of_nines()), {}]).train,
    'own class': lambda: _dl(Balanced, power=1),
    'own half': lambda: _dl(Half),
    'get_idxs': lambda: _dl(DataLoader, get_idxs=lambda: list(range(119, -1, -1))),
    'shuffle_fn': lambda: _dl(DataLoader, shuffle_fn=lambda idxs: sorted(idxs, key=lambda i: -i)),
}

def learner_of(name, **kwargs):
    if 'table' in name: kwargs.update(model=TabLinear(), valid=tabular().valid)
    return learner(loaders[name](), **kwargs)

class DrawnTab(Drawn):
    def before_batch(self):
        if self.training: Drawn.log[-1].append(position(self.xb[-1]))

def drawn(name): return DrawnTab() if 'table' in name else Drawn()

def nines(batches): return np.mean([labels[i] == 9 for b in batches for i in b])

@pytest.mark.parametrize('name', list(loaders))
def test_a_twin_trains_on_what_fit_trains_on(name):
    learn = learner_of(name, cbs=drawn(name))
    learn.fit(5)
    with refits(learn, 1, 5) as fit: fit()
    a,b = Drawn.log
    assert list(map(len, a)) == list(map(len, b)) # as many batches, as large
    assert abs(nines(a)-nines(b)) < .12
    if name in ('in order', 'get_idxs', 'shuffle_fn', 'own half'): assert a == b

@pytest.mark.parametrize('name', list(loaders))
def test_predictions_and_targets_belong_to_their_items(name):
    learn = learner_of(name, cbs=drawn(name))
    n = 60 if name == 'fewer' else 120
    preds,targs = learn.oof_preds(2, 0., folds=3) # lr=0: what the learner itself predicts
    assert targs.flatten().tolist() == labels[:n].tolist()
    x = vectors()[:n]
    model = Linear()
    model.load_state_dict(learn.model.state_dict())
    assert torch.allclose(preds, model(x).softmax(1), atol=1e-5)
    fold = fold_of(labels[:n], 3, 0)
    assert len(Drawn.log) == 3
    for k,batches in enumerate(Drawn.log):
        seen = {i for b in batches for i in b}
        assert seen and seen <= set(np.flatnonzero(fold != k)) # what is predicted was not seen
    if name in ('plain', 'tensors', 'in order', 'fewer', 'datasets', 'get_idxs', 'shuffle_fn', 'sorted'):
        if learn.dls.train.drop_last: return
        for k,batches in enumerate(Drawn.log):
            assert sorted(i for b in batches for i in b) == sorted(2*list(np.flatnonzero(fold != k)))

@pytest.mark.parametrize('name', list(loaders))
def test_without_items(name):
    learn = learner_of(name, cbs=drawn(name))
    n = 60 if name == 'fewer' else 120
    left_out = list(range(0, n, 3))
    dls = learn.dls
    learn.dls = without(dls, left_out)
    assert len(learn.dls.train_ds) == n-len(left_out) and len(dls.train_ds) == 120
    assert type(learn.dls.train) is type(dls.train)
    learn.fit(3)
    seen = [i for b in Drawn.log[0] for i in b]
    assert seen and not set(seen) & set(left_out)
    if 'weighted' in name or name == 'own class': assert nines([seen]) > .6
    if 'partial' in name: assert len(seen) == 3*32
    learn.dls = without(learn.dls, pd.Series([0, 1], name='item')) # positions in the training set as it is now
    assert len(learn.dls.train_ds) == n-len(left_out)-2
    learn.fit(1)
    assert not {i for b in Drawn.log[1] for i in b} & {*left_out, 1, 2}
    assert sum(len(b[0]) for b in without(dls, left_out).train) <= n

@pytest.mark.parametrize('name', ['plain', 'weighted', 'table', 'partial'])
def test_what_is_left_can_be_pickled(name):
    dl = without(learner_of(name).dls, [0, 1]).train
    again = pickle.loads(pickle.dumps(dl))
    assert len(again.dataset) == 118 and len(list(again)) == len(list(dl))

class NotCopied(list):
    "A dataset that is too large to copy"
    def __deepcopy__(self, memo): raise AssertionError('copied')

@pytest.mark.parametrize('cls,kwargs', [
    (DataLoader, {}), (Balanced, dict(power=1)), (DataLoader, dict(get_idxs=lambda: list(range(120))))],
    ids=['plain', 'own class', 'get_idxs'])
def test_a_dataset_is_never_copied(cls, kwargs):
    learn = learner(_dl(cls, NotCopied(items), **kwargs))
    learn.dls = without(without(learn.dls, [0]), pd.Series([1, 2], name='item'))
    assert learn.oof_preds(1, folds=2)[1].tolist() == [int(y) for _,y in items[1:2]+items[4:]]

class Curriculum(DataLoader):
    "In each epoch twice as many items"
    epoch = 0
    def before_iter(self): self.epoch += 1
    def get_idxs(self): return list(range(15*2**self.epoch))[:self.n]

def test_a_sampler_that_counts_epochs():
    learn = learner(_dl(Curriculum), cbs=Drawn())
    with refits(learn, 2, 2) as fit:
        fit()
        fit(np.arange(0, 120, 2))
    learn.fit(2)
    assert [sum(map(len, o)) for o in Drawn.log] == [90, 45, 90]

def test_weights_of_zero():
    "Items that are never drawn hang nothing, and are predicted"
    wgts = np.where(np.arange(120) < 60, 0., 1.)
    learn = learner(_dl(WeightedDL, wgts=wgts), cbs=Drawn())
    assert len(learn.oof_preds(1, folds=2)[0]) == 120
    assert min(i for batches in Drawn.log for b in batches for i in b) >= 60
    with pytest.raises(ValueError, match='weight 0 for each of the 60 items'): without(learn.dls, range(60, 120))
    dls = learner(_dl(Half)).dls
    with pytest.raises(ValueError, match='draws none of the 60 items'): without(dls, range(0, 120, 2))

def test_a_fold_smaller_than_a_batch_is_trained_on():
    "fastai drops the last batch, which is the only one"
    learn = learner(_dl(DataLoader, drop_last=True), cbs=Drawn())
    learn.dls.train = DataLoader(items[:70], bs=64, shuffle=True, drop_last=True, num_workers=0)
    learn.oof_preds(3, 1e-2, folds=5)
    assert [list(map(len, o)) for o in Drawn.log] == [[56]*3]*5
    assert [len(y) for _,y in without(learn.dls, range(10)).train] == [60]

class Named(Dataset):
    "A dataset with attributes"
    classes,vocab = 'zero', [f'd{i}' for i in range(10)]
    loss_func = CrossEntropyLossFlat()
    def __init__(self): self.items,self.targets = [f'file{i}' for i in range(120)],labels
    def __len__(self): return 120
    def __getitem__(self, i): return items[i]

def test_a_smaller_dataset_keeps_its_attributes():
    ds = without(learner(_dl(DataLoader, Named())).dls, [0, 2]).train_ds
    assert ds.vocab == Named.vocab and ds.loss_func is Named.loss_func and len(ds) == 118
    assert ds.items[:2] == ['file1', 'file3'] and ds.targets[:2].tolist() == labels[[1, 3]].tolist()
    assert not hasattr(ds, 'something_else')
    dls = block().dataloaders(range(160), bs=16, num_workers=0)
    dls.train_ds.mine = 'kept'
    some = without(dls, [0, 2])
    ds = some.train_ds
    assert isinstance(ds, Datasets) and ds.items[:2] == [1, 3] and ds.mine == 'kept' and ds.n_inp == 1
    assert some.vocab == dls.vocab and some.c == dls.c and some.loss_func is dls.loss_func
    assert ds.dataloaders.__self__ is ds and list(dls.train_ds.items[:2]) == [0, 1]
    dls = tabular()
    some = without(dls, [0, 2])
    assert list(some.train_ds.items.index[:2]) == [1, 3] and some.vocab == dls.vocab
    assert len(some.train_ds.subset(0)) == 118

class TableWithMore(Datasets):
    "Items that fastai's own subset would not know"
    def __getitem__(self, i): return (*super().__getitem__(i), self.more[i])

def test_a_dataset_that_makes_its_items_itself():
    ds = TableWithMore(range(120), [[lambda i: items[i][0]], [lambda i: int(labels[i])]], n_inp=1)
    ds.more = labels.tolist()
    dls = without(DataLoaders(_dl(TfmdDL, ds), _dl(TfmdDL, ds)), range(0, 120, 2))
    for x,y,more in dls.train: assert y.tolist() == more.tolist() == labels[position(x)].tolist()

class Mirrors(Transform):
    "Changes the label in training, as an augmentation of a mask does"
    split_idx = 0
    def encodes(self, o:int): return 9-o

def test_targets_are_those_without_augmentation():
    tfms = [[lambda i: items[i][0]], [lambda i: int(labels[i]), Mirrors()]]
    ds = Datasets(range(120), tfms, splits=[range(120), range(40)])
    learn = learner(_dl(TfmdDL, ds.train), cbs=Drawn())
    assert learn.dls.train.dataset[0][1] == 9-labels[0]
    _,targs = learn.oof_preds(1, 0., folds=2)
    assert targs.tolist() == labels.tolist()
    assert ds.train.split_idx == 0

# What is refused, before anything is trained

class Stream(IterableDataset):
    def __iter__(self): return iter(items)

class MakesItems(DataLoader):
    def create_item(self, i): return items[i]

class Skipping(list):
    def __getitem__(self, i):
        if i == 7: raise SkipItemException()
        return super().__getitem__(i)

def prebatched():
    batches = [(vectors()[i:i+10], labels[i:i+10]) for i in range(0, 120, 10)]
    return DataLoader(batches, bs=None, num_workers=0)

refused = {
    'prebatched': (prebatched, 'batches were made beforehand'),
    'stream': (lambda: DataLoader(Stream(), bs=16, num_workers=0), 'can only be iterated over'),
    'torch': (lambda: TorchDataLoader(items, batch_size=16), 'expected a fastai DataLoader'),
    'own items': (lambda: _dl(MakesItems), 'its own `create_item`'),
    'skips': (lambda: _dl(DataLoader, Skipping(items)), r'gives 1\d+ targets for 1\d+ items'),
    'no targets': (lambda: _dl(DataLoader, [(x,) for x,_ in items]), 'all inputs'),
    'two targets': (lambda: _dl(DataLoader, [(x, y, y) for x,y in items]), '2 targets: expected one'),
    'ragged': (lambda: _dl(DataLoader, [(x, torch.zeros(1 + i//16).long()) for i,(x,_) in enumerate(items)]),
               'shapes .* from batch to batch'),
}

@pytest.mark.parametrize('name', list(refused))
@pytest.mark.parametrize('call', ['oof_preds', 'label_issues'])
def test_refused_before_anything_is_trained(call, name):
    make,message = refused[name]
    learn = learner(make(), cbs=Drawn())
    if name == 'two targets': learn.dls.n_inp = 1
    with pytest.raises((TypeError, ValueError), match=message): calls[call](learn)
    assert not Drawn.log
    if name in ('skips', 'no targets', 'two targets', 'ragged'): return
    with pytest.raises(TypeError, match=message): without(learn.dls, [0])

@pytest.mark.parametrize('name', ['prebatched', 'torch', 'skips', 'own items'])
def test_eps_find_leaves_no_items_out_and_takes_any_batches(name):
    assert len(calls['eps_find'](learner(refused[name][0]())).table) == 2

class Iterated(Stream):
    def __len__(self): return 120

@pytest.mark.parametrize('make', [
    lambda: ((vectors()[:40], labels[:40]), (vectors()[40:], labels[40:])), prebatched, refused['torch'][0],
    lambda: DataLoader(Iterated(), bs=16, num_workers=0)], ids=['list of batches', 'prebatched', 'torch', 'iterated'])
def test_one_training_takes_any_validation_batches(make):
    learn = learner(valid=make())
    assert learn.eps_find(1, 1e-2, show_plot=False).table.attrs['n'] == 120

class Pair(Linear):
    def forward(self, x): return super().forward(x),x

@pytest.mark.parametrize('call', ['oof_preds', 'label_issues'])
def test_a_model_of_two_outputs(call):
    loss = lambda p, y: F.cross_entropy(p[0], y)
    learn = learner(model=Pair(), loss_func=loss, cbs=Drawn())
    with pytest.raises(TypeError, match='expected one tensor with a row for each item'): calls[call](learn)
    assert not Drawn.log

def test_language_models_are_refused():
    df = pd.DataFrame(dict(text=['a film that is so very good and nice ']*40))
    dls = TextDataLoaders.from_df(df, text_col='text', is_lm=True, valid_pct=.2, bs=4, seq_len=8, num_workers=0)
    config = {**awd_lstm_lm_config, 'emb_sz': 10, 'n_hid': 12, 'n_layers': 2}
    learn = quiet(language_model_learner(dls, AWD_LSTM, config=config, pretrained=False))
    for call in (lambda: learn.oof_preds(1), lambda: learn.label_issues(1), lambda: without(learn.dls, [3])):
        with pytest.raises(TypeError, match="a language model's"): call()
    with pytest.raises(TypeError, match='a language model.*expected eps='): learn.eps_find(1)
    assert not learn._grab_cbs(LabelSmooth)
    order = list(learn.dls.train.items.idxs)
    assert len(learn.eps_find(1, eps=[0., .1], show_plot=False).table) == 2
    assert list(learn.dls.train.items.idxs) == order # of which texts are read

def test_bad_items():
    dl = learner().dls.train
    with pytest.raises(ValueError, match='positions in the dataset, 0 to 119'): keep_items(dl, [120])
    with pytest.raises(ValueError, match='items is empty'): keep_items(dl, [])
    with pytest.raises(TypeError, match='fastai DataLoader'): keep_items([1, 2], [0])

# What is a target

def test_two_inputs():
    "The Learner's own rule: the last tensor is the target where the DataLoaders do not say how many inputs there are"
    three = [(x, tensor(i%7), y) for i,(x,y) in enumerate(items)]
    learn = learner(three, valid=three[:40])
    assert learn.oof_preds(1, folds=2)[1].tolist() == labels.tolist()
    p = F.one_hot(labels, 10)*.9+.01
    assert not len(learn.label_issues(preds=p)) and learn.noise_matrix(preds=p, show_plot=False).attrs['share'] < .01

class FirstOrSecond(Module):
    "The loss of one of two targets"
    soft_targets,axis = True,-1
    def __init__(self, i): self.i = i
    def forward(self, p, *targs): return soft_cross_entropy(p, targs[self.i], axis=-1)
    def activation(self, x): return x.softmax(-1)

@pytest.mark.parametrize('i', [0, 1])
def test_two_targets(i):
    other = torch.rand(4)
    both = [(x, y, other) if i == 0 else (x, other, y) for x,y in items]
    learn = learner(both, valid=both[:40], loss_func=FirstOrSecond(i), cbs=LabelSmooth(.1, targ_idx=i))
    learn.dls.n_inp = 1
    preds,targs = learn.oof_preds(1, folds=2)
    assert targs.tolist() == labels.tolist() and preds.shape == (120, 10)
    learn.label_issues(1, folds=2)

# Nothing is taken over from an interrupted call

class StopsOnce(Callback):
    n = 0
    def after_epoch(self):
        StopsOnce.n += 1
        if StopsOnce.n == 3: raise KeyboardInterrupt

def test_labels_corrected_after_an_interruption():
    StopsOnce.n = 0
    learn = learner([(x, (y+1)%10) for x,y in items], cbs=StopsOnce())
    with pytest.raises(KeyboardInterrupt): learn.oof_preds(1, folds=4)
    learn.dls.train.dataset[:] = items
    preds,targs = learn.oof_preds(1, folds=4)
    assert targs.tolist() == labels.tolist()
    assert torch.equal(preds, learner(items).oof_preds(1, folds=4)[0])

# Folds

@pytest.mark.parametrize('targ', [
    labels, tensor([0]*118+[1]*2), torch.arange(120), labels[:, None], torch.rand(120), torch.rand(120, 3)],
    ids=['classes', 'rare', 'all different', 'column', 'numbers', 'rows'])
def test_folds_are_of_equal_size_and_hold_each_class(targ):
    fold = fold_of(targ, 5, 0)
    assert set(np.bincount(fold)) == {24} and not (fold == fold_of(targ, 5, 1)).all()
    if targ is labels:
        for k in range(10): assert np.ptp(np.bincount(fold[labels == k], minlength=5)) <= 1

# eps_find: which way is better

def worst(inp, targ): return F.cross_entropy(inp, targ)

class Fixed(AvgMetric):
    def __init__(self): super().__init__(worst)

@pytest.mark.parametrize('metric,lower', [
    (accuracy, False), (error_rate, True), (partial(top_k_accuracy, k=2), False), (ECE(), True), (BrierScore(), True),
    (Perplexity(), True)],
    ids=['accuracy', 'error_rate', 'top_k', 'ece', 'brier', 'perplexity'])
def test_known_metrics_say_which_way_is_better(metric, lower):
    learn = learner(metrics=metric)
    name = learn.metrics[0].name
    eps,table = learn.eps_find(3, 1e-2, eps=[0., .3, .6], by=name, show_plot=False)
    assert table[name][eps] == (table[name].min() if lower else table[name].max())

@pytest.mark.parametrize('metric,lower', [(VotesKL(), True), (EntropyCorrelation(), False)], ids=['kl', 'correlation'])
def test_metrics_of_votes_say_which_way_is_better(metric, lower):
    votes = [(x, torch.randn(10).mul(3).softmax(0)) for x,_ in items]
    learn = learner(votes, valid=votes[:40], loss_func=VotesLossFlat(), metrics=metric, cbs=LabelSmooth(mode='exact'))
    eps,table = learn.eps_find(5, 1e-2, eps=[0., .3, .6], by=metric.name, show_plot=False)
    assert table[metric.name][eps] == (table[metric.name].min() if lower else table[metric.name].max())

def test_of_other_metrics_the_caller_says_which_way_is_better():
    for metric in (worst, Fixed()):
        learn = learner(metrics=metric, cbs=Drawn())
        with pytest.raises(ValueError, match="by='worst' with lower=None.*expected lower=True or False"):
            learn.eps_find(1, by='worst')
        with pytest.raises(ValueError, match="lower='yes'"): learn.eps_find(1, by='worst', lower='yes')
        assert not Drawn.log
        for lower in (True, False):
            eps,table = learn.eps_find(2, 1e-2, eps=[0., .3, .6], by='worst', lower=lower, show_plot=False)
            assert table.worst[eps] == (table.worst.min() if lower else table.worst.max())
        Drawn.log = []

# What a user did before

@pytest.mark.parametrize('use', [
    lambda learn: learn.lr_find(show_plot=False, num_it=5),
    lambda learn: next(iter(learn.dls.train)),
    lambda learn: learn.fit(1, cbs=Stops())], ids=['lr_find', 'a batch', 'ctrl-c'])
def test_a_pass_that_was_interrupted_is_no_hindrance(use, tmp_path):
    "fastai keeps the iterator of such a pass in the `DataLoader`"
    dsets = Datasets(items, [[ItemGetter(0)], [ItemGetter(1)]]) # iterated over by a generator, which has no copy
    learn = learner(TfmdDL(dsets, bs=16, shuffle=True, num_workers=0), path=tmp_path)
    try: use(learn)
    except KeyboardInterrupt: pass
    left = learn.dls.train.it
    assert len(learn.oof_preds(1, folds=2)[0]) == 120
    assert learn.dls.train.it is left
