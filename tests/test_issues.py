"`label_issues` names wrong labels in each task, warns where it cannot know, and refuses before it trains"
import warnings
import numpy as np, pandas as pd, pytest, torch
import torch.nn.functional as F
from torch import nn, tensor
from fastai.basics import *
from fastai.losses import FocalLossFlat
from fastai.data.all import CategoryBlock, DataBlock, IndexSplitter, TransformBlock
from fastai.tabular.all import TabularDataLoaders, tabular_learner
from fastai_labelsmooth.all import *
from fastai_labelsmooth.wrong_labels.issues import fold_of
from helpers import digits_dls, digits_learner, items_dls, quiet

def flipped(y, share, n=10, seed=0):
    "Labels of which a share is another class, at random, and which ones"
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(y)) < share
    return torch.where(tensor(wrong), (y+tensor(rng.integers(1, n, len(y))))%n, y),wrong

def noisy_digits(share=.2, n_train=900, seed=0):
    dls = digits_dls(n_train=n_train, n_valid=200)
    xs,ys = (torch.stack(o) for o in zip(*dls.train.dataset))
    ys,wrong = flipped(ys, share, seed=seed)
    return DataLoaders(DataLoader(list(zip(xs, ys)), bs=64, shuffle=True, num_workers=0), dls.valid),wrong

class Trained(Callback):
    "How many trainings there were"
    count = 0
    def before_fit(self):
        if not hasattr(self, 'gather_preds'): Trained.count += 1

@pytest.fixture(autouse=True)
def _count(): Trained.count = 0

def learner_of(items, model, loss, bs=64, **kwargs):
    set_seed(0)
    return quiet(Learner(items_dls(items, items[:bs], bs, shuffle=True), model, loss, **kwargs))

def messages(f):
    "What is warned of"
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        f()
    return [str(o.message) for o in seen if issubclass(o.category, UserWarning)]

# The list

@pytest.fixture(scope='module')
def digits_issues():
    dls,wrong = noisy_digits()
    learn = digits_learner([LabelSmooth(.1), Trained()], dls=dls)
    Trained.count = 0
    return learn.label_issues(15, 1e-2),wrong,learn,Trained.count

def test_the_list_is_of_wrong_labels_most_doubtful_first(digits_issues):
    issues,wrong,learn,n = digits_issues
    assert n == 5 # one round of five models
    assert list(issues) == ['source', 'label', 'likely', 'prob_wrong'] and (issues.index == issues.source).all()
    assert wrong[issues.source].mean() > .9 and len(issues) > .85*wrong.sum()
    assert issues.prob_wrong.is_monotonic_decreasing and issues.prob_wrong.min() > .5
    labels = np.array([int(y) for _,y in learn.dls.train.dataset])
    assert (issues.label == labels[issues.source]).all() and (issues.likely != issues.label).all()

def test_the_list_says_how_far_to_trust_it(digits_issues):
    issues,wrong,*_ = digits_issues
    assert issues.attrs['n'] == 900 and abs(issues.attrs['share']-wrong.mean()) < .03
    lo,hi = issues.attrs['interval']
    assert lo < wrong.mean() < hi
    assert issues.attrs['expected_wrong'] == pytest.approx(wrong[issues.source].sum(), rel=.06)

@pytest.fixture(scope='module')
def hard_preds(digits_issues):
    "Of a Learner without a LabelSmooth"
    return digits_learner(dls=digits_issues[2].dls).oof_preds(15, 1e-2)

def test_folds_are_of_models_without_a_labelsmooth(digits_issues, hard_preds):
    "The list is the same with any mode, and the Learner keeps its own. Predictions of any model are taken"
    issues,_,learn,_ = digits_issues
    assert learn.label_smooth.eps == .1
    preds,targs = hard_preds
    for given in (preds, preds.numpy(), (preds, targs)):
        pd.testing.assert_frame_equal(learn.label_issues(preds=given), issues)

def test_thresh_0_ranks_every_item(digits_issues, hard_preds):
    issues,wrong,learn,_ = digits_issues
    preds,_ = hard_preds
    all_of_them = learn.label_issues(preds=preds, thresh=0)
    assert sorted(all_of_them.source) == list(range(900))
    assert list(all_of_them.source[:50]) == list(issues.source[:50])
    few = learn.label_issues(preds=preds, thresh=.99)
    assert 0 < len(few) < len(issues) and few.prob_wrong.min() > .99

def test_of_right_labels_hardly_any_is_named():
    dls,_ = noisy_digits(0.)
    issues = digits_learner(dls=dls).label_issues(15, 1e-2)
    assert len(issues) < 10 and issues.attrs['share'] < .01

def test_by_class_finds_what_is_wrong_in_one_direction():
    dls = digits_dls(n_train=900)
    xs,ys = (torch.stack(o) for o in zip(*dls.train.dataset))
    wrong = torch.rand(900, generator=torch.Generator().manual_seed(0)).numpy() < .3
    dls.train.dataset[:] = list(zip(xs, torch.where(tensor(wrong), (ys+1)%10, ys)))
    issues = digits_learner(dls=dls).label_issues(15, 1e-2, by_class=True)
    assert wrong[issues.source].mean() > .85 and len(issues) > .75*wrong.sum()
    right = ys.numpy()[issues.source] == issues.likely
    assert right[wrong[issues.source]].mean() > .9

# Guards

def rare_digits(n_rare, share=0.):
    "Digits with few items of class 0"
    dls = digits_dls(n_train=900)
    items = list(dls.train.dataset)
    zeros = [o for o in items if o[1] == 0][:n_rare]
    items = [o for o in items if o[1] != 0]+zeros
    xs,ys = (torch.stack(o) for o in zip(*items))
    ys[:-n_rare] = flipped(ys[:-n_rare]-1, share, 9)[0]+1
    dls.train.dataset[:] = list(zip(xs, ys))
    dls.train.n = len(ys)
    return dls

@pytest.mark.parametrize('share', [0., .2], ids=['no noise', '20% noise'])
@pytest.mark.parametrize('n_rare', [1, 3, 8, 15])
def test_a_rare_class_keeps_its_right_labels(n_rare, share):
    dls = rare_digits(n_rare, share)
    learn = digits_learner(dls=dls)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        issues = learn.label_issues(15, 1e-2)
    assert (issues.label == 0).sum() <= n_rare/3

def test_a_class_without_items_changes_nothing():
    dls,wrong = noisy_digits()
    learn = digits_learner(dls=dls, n_out=12)
    issues = learn.label_issues(15, 1e-2)
    assert wrong[issues.source].mean() > .9 and len(issues) > .85*wrong.sum()

def random_probs(n, k, sure, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(k, size=n)
    z = rng.normal(size=(n, k))+sure*np.eye(k)[y]
    return torch.softmax(torch.from_numpy(z), 1),tensor(y)

def given_learner(p, y):
    return learner_of([(torch.zeros(1), o) for o in y], nn.Linear(1, p.shape[1]), CrossEntropyLossFlat())

def test_weak_models_are_warned_of():
    p,y = random_probs(600, 5, .5)
    learn = given_learner(p, y)
    assert any('can hardly tell the classes apart' in o for o in messages(lambda: learn.label_issues(preds=(p, y))))
    p,y = random_probs(600, 5, 6.)
    assert not messages(lambda: given_learner(p, y).label_issues(preds=(p, y)))

def test_a_wide_interval_is_warned_of():
    p,y = random_probs(20, 3, 3.)
    y[:5] = (y[:5]+1)%3
    assert any('too few labels' in o for o in messages(lambda: given_learner(p, y).label_issues(preds=(p, y))))

def test_few_items_of_a_class_are_warned_of():
    p,y = random_probs(600, 5, 6.)
    some = np.r_[np.flatnonzero(y != 2), np.flatnonzero(y == 2)[:4]]
    p,y = p[some],y[some]
    learn = given_learner(p, y)
    assert any('few items are labelled 2' in o for o in messages(lambda: learn.label_issues(preds=(p, y))))

def test_noise_that_differs_by_class_is_warned_of():
    "Models that have learnt it predict it, and then evenly wrong labels explain little of it"
    p,y = random_probs(1500, 4, 5.)
    T = .7*torch.eye(4, dtype=torch.double)+.3*torch.eye(4, dtype=torch.double).roll(1, 1)
    seen = T[y].multinomial(1, generator=torch.Generator().manual_seed(0))[:, 0]
    learn = given_learner(p, seen)
    assert any('by_class=True' in o for o in messages(lambda: learn.label_issues(preds=(p@T, seen))))
    even,_ = flipped(y, .1, 4)
    learn = given_learner(p, even)
    assert not any('by_class' in o for o in messages(lambda: learn.label_issues(preds=(p, even))))

def test_a_learner_that_was_trained_elsewhere_is_warned_of(tmp_path):
    "Its weights have seen the labels; a new one's have not"
    dls = noisy_digits()[0]
    trained = digits_learner(dls=dls)
    trained.path = tmp_path
    assert not any('before any training' in o for o in messages(lambda: trained.oof_preds(1, folds=2)))
    trained.fit_one_cycle(8, 1e-2)
    trained.save('weights')
    loaded = digits_learner(dls=dls, seed=1)
    loaded.path = tmp_path
    loaded.load('weights')
    for f in (loaded.oof_preds, loaded.label_issues):
        assert any('predicts labels before any training' in o for o in messages(lambda: f(1, folds=2)))

def test_a_new_learner_is_not_taken_for_a_trained_one(tmp_path):
    "After `lr_find` and `validate` it is as it was"
    learn = digits_learner(path=tmp_path)
    learn.lr_find(show_plot=False, num_it=40)
    learn.validate()
    assert not any('trained' in o for o in messages(lambda: learn.oof_preds(1, folds=2)))
    learn.fit(1)
    assert any('has been trained already' in o for o in messages(lambda: learn.oof_preds(1, folds=2)))

def test_weights_that_know_sorted_labels_are_warned_of():
    "As those of image files by folder: the first batch has one class"
    xs,ys = (torch.stack(o) for o in zip(*digits_dls().train.dataset))
    learn = learner_of([(xs[i], ys[i]) for i in ys.argsort()], digits_learner().model, CrossEntropyLossFlat())
    learn.fit_one_cycle(8, 1e-2)
    new = learner_of(learn.dls.train.dataset, learn.model, CrossEntropyLossFlat())
    assert any('predicts labels before' in o for o in messages(lambda: new.label_issues(1, folds=2)))

@pytest.mark.parametrize('loss', [CrossEntropyLossFlat(label_smoothing=.1), FocalLossFlat()])
def test_out_of_fold_predictions_of_losses_without_a_counterpart(loss):
    assert digits_learner(loss_func=loss).oof_preds(1, folds=2)[0].shape == (512, 10)

def test_predictions_in_any_form():
    learn = digits_learner()
    p,y = learn.get_preds(dl=learn.dls.train.new(shuffle=False))
    want = learn.label_issues(preds=(p, y), thresh=0)
    for preds in (
        (p.numpy()[::-1][::-1], pd.Series(y.numpy(), np.arange(512)[::-1])),
        (p.clone().requires_grad_(), y, y),
        p.tolist(),
        (list(p), y.numpy().astype(np.uint16))):
        pd.testing.assert_frame_equal(learn.label_issues(preds=preds, thresh=0), want, rtol=1e-4)

def test_predictions_of_another_number_of_classes_are_refused():
    learn = digits_learner()
    learn.dls.vocab = list('abcdefghij')
    p = torch.full((512, 4), .25)
    for f in (learn.label_issues, learn.noise_matrix):
        with pytest.raises(ValueError, match=r"preds have 4 columns: expected 10, one for each of \['a', "): f(preds=p)

# Every task

def linear_data(n=1500, k=4):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, 8, generator=g)
    return x,(x @ torch.randn(8, k, generator=g) > .8).float(),g

@pytest.mark.parametrize('shape', [(-1,), (-1, 1)], ids=['flat', 'column'])
def test_one_logit(shape):
    x,y,g = linear_data(800, 1)
    wrong = torch.rand(800, generator=g) < .15
    labels = torch.where(wrong, 1-y[:, 0], y[:, 0]).reshape(shape)
    model = nn.Sequential(nn.Linear(8, 1), nn.Flatten(0) if len(shape) == 1 else nn.Identity())
    learn = learner_of(list(zip(x, labels)), model, BCEWithLogitsLossFlat())
    learn.dls.vocab = ['no', 'yes']
    issues = learn.label_issues(10, 3e-2)
    assert wrong.numpy()[issues.source].mean() > .85 and len(issues) > .8*wrong.sum()
    assert set(issues.label) == {'no', 'yes'} and (issues.label != issues.likely).all()

def test_several_labels():
    x,y,g = linear_data()
    missing = (y == 1) & (torch.rand(y.shape, generator=g) < .3)
    labels = torch.where(missing, 0., y)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
    learn = learner_of(list(zip(x, labels)), model, BCEWithLogitsLossFlat())
    learn.dls.vocab = list('abcd')
    issues = learn.label_issues(10, 1e-2)
    assert list(issues) == ['item', 'source', 'name', 'label', 'prob_wrong'] and len(issues) > 50
    j = issues.name.map('abcd'.index).to_numpy(dtype=int)
    assert missing.numpy()[issues.item, j].mean() > .9
    assert (issues.label == labels.numpy()[issues.item, j]).all()
    assert len(learn.label_issues(1, 1e-2, thresh=0, folds=2)) == labels.numel()

def shapes(n=90):
    "Noisy pictures of two squares, and their masks"
    g = torch.Generator().manual_seed(0)
    x,y = torch.randn(n, 3, 24, 24, generator=g)*.5,torch.zeros(n, 24, 24, dtype=torch.long)
    for i in range(n):
        for c in (1, 2):
            a,b = torch.randint(0, 14, (2,), generator=g)
            y[i, a:a+8, b:b+8] = c
        for c in range(3): x[i, c] += (y[i] == c)*1.5
    return x,y

def test_masks():
    x,y = shapes()
    wrong,labels = np.arange(90)%6 == 0,y.clone()
    for i in np.flatnonzero(wrong): labels[i] = y[i].roll(6, 0) if i%12 else tensor([0, 2, 1])[y[i]]
    labels[:, 0] = 255
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1))
    loss = CrossEntropyLossFlat(axis=1, ignore_index=255)
    learn = learner_of(list(zip(x, labels)), model, loss, bs=16, cbs=Trained())
    learn.dls.vocab = ['ground', 'a', 'b']
    issues = learn.label_issues(5, 1e-2)
    assert Trained.count == 5
    assert list(issues) == ['source', 'label', 'likely', 'in_doubt', 'share', 'prob_wrong']
    assert wrong[issues.source[:15]].mean() > .9
    assert issues.in_doubt.gt(0).all() and (issues.share == issues.in_doubt/(23*24)).all()
    assert {issues.label.iloc[0], issues.likely.iloc[0]} <= {'ground', 'a', 'b'}
    assert abs(issues.attrs['share']-(labels != y)[labels != 255].float().mean().item()) < .02
    assert len(learn.label_issues(1, 1e-2, thresh=0, folds=2)) == 90

def test_kept_predictions_are_of_these_masks(tmp_path):
    x,y = shapes(40)
    def learn():
        model = nn.Conv2d(3, 3, 3, padding=1)
        return learner_of(list(zip(x, y)), model, CrossEntropyLossFlat(axis=1), bs=16, cbs=Trained())
    a = learn().label_issues(1, 1e-2, thresh=0, folds=2, path=tmp_path)
    b = learn().label_issues(1, 1e-2, thresh=0, folds=2, path=tmp_path)
    assert Trained.count == 2
    pd.testing.assert_frame_equal(a, b)
    y[3, 5, 5] = 2-y[3, 5, 5]+(y[3, 5, 5] == 1)
    with pytest.raises(ValueError, match='labels='): learn().label_issues(1, 1e-2, thresh=0, folds=2, path=tmp_path)

def test_sequences():
    "A label for each step, classes last, some steps unknown"
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 4, (200, 12), generator=g)
    x = F.one_hot(y, 4)*2. + torch.randn(200, 12, 4, generator=g)*.5
    labels,wrong = y.clone(),np.arange(200)%8 == 0
    labels[wrong] = (labels[wrong]+torch.randint(0, 2, (25, 12), generator=g))%4
    labels[:, -2:] = -100
    learn = learner_of(list(zip(x, labels)), nn.Linear(4, 4), CrossEntropyLossFlat())
    issues = learn.label_issues(10, 3e-2)
    assert wrong[issues.source[:25]].mean() > .9 and issues.in_doubt.max() <= 10

def test_items_without_a_label_are_left_out():
    dls,wrong = noisy_digits()
    items = list(dls.train.dataset)
    for i in range(0, 900, 10): items[i] = (items[i][0], tensor(-100))
    dls.train.dataset[:] = items
    issues = digits_learner(dls=dls).label_issues(15, 1e-2)
    assert not (issues.source%10 == 0).any() and issues.attrs['n'] == 810
    assert wrong[issues.source].mean() > .9

def test_all_items_are_in_the_training_set():
    "So validation labels are judged too; sources say where each is"
    d = digits_dls(n_train=300)
    xs,ys = (torch.stack(o) for o in zip(*d.train.dataset))
    labels,wrong = flipped(ys, .2)
    df = pd.DataFrame(dict(i=range(300), y=labels.numpy()), index=[f'row {i}' for i in range(300)])
    whole = DataBlock((TransformBlock, TransformBlock), get_x=lambda r: xs[r.i],
                                              get_y=lambda r: tensor(r.y), splitter=IndexSplitter([]))
    issues = digits_learner(dls=whole.dataloaders(df, bs=64, num_workers=0)).label_issues(10, 2e-2, folds=3)
    assert wrong[df.i[issues.source]].mean() > .8 and len(issues) > .7*wrong.sum()

# What is refused, before the first training

def with_targets(change):
    items = list(digits_dls(n_train=120).train.dataset)
    return [(x, change(i, y)) for i,(x,y) in enumerate(items)]

refused = {
    'votes': (lambda i, y: torch.rand(10).softmax(0), VotesLossFlat(), 'Votes are not labels that may be wrong'),
    'votes for several labels': (lambda i, y: torch.rand(10), BCEWithLogitsLossFlat(), 'Shares of votes are not'),
    'regression': (lambda i, y: torch.rand(10), MSELossFlat(), 'no soft-target counterpart'),
    'one class': (lambda i, y: tensor(3), CrossEntropyLossFlat(), r'are of 1 class \(3\): expected at least two'),
    'no label': (lambda i, y: tensor(-100), CrossEntropyLossFlat(), 'are of 0 classes: expected at least two'),
}

@pytest.mark.parametrize('change,loss,message', list(refused.values()), ids=list(refused))
def test_targets_that_cannot_be_judged(change, loss, message):
    items = with_targets(change)
    learn = learner_of(items, nn.Linear(64, 10), loss, cbs=Trained())
    with pytest.raises((TypeError, ValueError), match=message): learn.label_issues(1, folds=2)
    assert not Trained.count

def test_bad_predictions():
    learn = digits_learner()
    p = torch.full((512, 10), .1)
    y = tensor([int(y) for _,y in learn.dls.train.dataset])
    for preds,message in (
        (p[:5], '5 items: expected one row for each of the 512'),
        (p*2, 'sum to 1'),
        (p/float('nan'), 'NaN'),
        ((p, y+5), r'are not the training labels \(512 of 512 differ\)'),
        ((p, y[:5]), r'are not the training labels \(512 of 512 differ\)')):
        with pytest.raises(ValueError, match=message): learn.label_issues(preds=preds)
    with pytest.raises(TypeError, match='preds is a DataFrame: expected a tensor or an array'):
        learn.label_issues(preds=pd.DataFrame(p.numpy()))

def test_predictions_of_other_items_are_refused():
    "A list made of them would name right labels"
    learn = digits_learner()
    with pytest.raises(ValueError, match='preds are of 200 items: expected .* 512 training items.*IndexSplitter'):
        learn.label_issues(preds=learn.get_preds(act=noop))
    p,y = learn.get_preds(0) # in another order in each epoch
    same = learn.get_preds(dl=learn.dls.train.new(shuffle=False))
    order = torch.randperm(512)
    n = (same[1] != same[1][order]).sum().item()
    with pytest.raises(ValueError, match=rf'not the training labels \({n} of 512 differ\)'):
        learn.label_issues(preds=(same[0], same[1][order]))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore') # it has learnt nothing
        assert learn.label_issues(preds=same, thresh=0).index.sort_values().tolist() == list(range(512))

def test_unknown_labels_that_the_loss_does_not_know_are_refused_before_training():
    x,y,_ = linear_data(60)
    y[0, 0] = math.nan
    learn = learner_of(list(zip(x, y)), nn.Linear(8, 4), BCEWithLogitsLossFlat(), cbs=Trained())
    with pytest.raises(ValueError, match=r'SoftBCEWithLogitsLossFlat\(ignore_index'): learn.label_issues(1, folds=2)
    assert not Trained.count

def test_an_unknown_argument_is_refused():
    with pytest.raises(TypeError, match="label_issues.*'n_epochs'"): digits_learner().label_issues(n_epochs=10)

def test_boxes_are_refused():
    "A detector has two targets, and no LabelSmooth says which one is meant"
    items = [(x, torch.rand(2, 4), y) for x,y in digits_dls(n_train=120).train.dataset]
    learn = learner_of(items, nn.Linear(64, 10), CrossEntropyLossFlat(), cbs=Trained())
    learn.dls.n_inp = 1
    with pytest.raises(ValueError, match='have 2 targets: expected one'): learn.label_issues(1, folds=2)
    assert not Trained.count

@pytest.mark.parametrize('kwargs,message', [
    (dict(thresh=1.), 'thresh=1.0: expected a probability'),
    (dict(thresh='all'), "thresh='all'"),
    (dict(folds=1), 'folds=1'),
    (dict(folds=1000), 'folds=1000 with 120 training items'),
    (dict(n_epoch=0), 'n_epoch=0'),
    (dict(fit=3), 'fit=3: expected a function'),
    (dict(groups=[1, 2]), 'groups has 2 values: expected one for each of the 120'),
    (dict(groups=[1]*60+[2]*60, folds=3), 'groups has 2 different values: expected at least folds=3')],
    ids=['thresh', 'thresh of words', 'one fold', 'many folds', 'no epoch', 'no function', 'groups', 'few groups'])
def test_bad_arguments(kwargs, message):
    learn = learner_of(with_targets(lambda i, y: y), nn.Linear(64, 10), CrossEntropyLossFlat(), cbs=Trained())
    with pytest.raises((TypeError, ValueError), match=message): learn.label_issues(**kwargs)
    assert not Trained.count

def test_a_dataframe_with_doubles_in_its_index():
    df = pd.DataFrame(dict(i=range(40), y=[0, 1]*20), index=[0, 1]*20)
    block = DataBlock((TransformBlock, TransformBlock), get_x=lambda r: torch.zeros(64)+r.i,
                      get_y=lambda r: tensor(r.y), splitter=IndexSplitter([1]))
    learn = digits_learner(dls=block.dataloaders(df, bs=8, num_workers=0))
    with pytest.raises(ValueError, match="index label '0' more than once: expected a unique"): learn.label_issues(1)

# Long trainings

def test_a_dataframe_with_a_multiindex():
    df = pd.DataFrame(dict(x=np.arange(40.), y=np.arange(40)%2), pd.MultiIndex.from_product([range(8), range(5)]))
    dls = TabularDataLoaders.from_df(df, cont_names=['x'], y_names='y', y_block=CategoryBlock(), bs=8)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore') # it has learnt nothing
        issues = quiet(tabular_learner(dls)).label_issues(1, folds=2, thresh=0)
    assert (df.loc[issues.source].y.to_numpy() == issues.label).all() and (issues.index == issues.source).all()
    assert len(without(dls, issues[:3]).train_ds) == 29

def plain_learner(*cbs):
    items = with_targets(lambda i, y: y)
    return learner_of(items, nn.Linear(64, 10), CrossEntropyLossFlat(), bs=16, cbs=[Trained(), *cbs])

class Stops(Callback):
    "Ends the third training"
    def before_fit(self):
        if Trained.count == 3: raise KeyboardInterrupt

def test_another_process_takes_up_what_is_kept(tmp_path):
    "A folder keeps each fold that is complete"
    expected = plain_learner().oof_preds(2, 1e-2)[0]
    Trained.count = 0
    with pytest.raises(KeyboardInterrupt): plain_learner(Stops()).oof_preds(2, 1e-2, path=tmp_path/'oof')
    Trained.count = 0
    preds,targs = plain_learner().oof_preds(2, 1e-2, path=tmp_path/'oof')
    assert Trained.count == 3 and torch.equal(preds, expected)
    again = plain_learner().oof_preds(2, 1e-2, path=tmp_path/'oof')[0]
    assert Trained.count == 3 and torch.equal(again, expected)
    again.zero_() # a copy
    pd.testing.assert_frame_equal(plain_learner().label_issues(2, 1e-2, path=tmp_path/'oof', thresh=0),
                                  plain_learner().label_issues(preds=(preds, targs), thresh=0))
    assert Trained.count == 3

@pytest.mark.parametrize('kwargs,message', [
    (dict(n_epoch=3), 'n_epoch=2 and not 3'),
    (dict(folds=3), 'folds='),
    (dict(lr=.1), 'lr=')], ids=lambda o: str(o))
def test_predictions_of_another_setting_are_not_taken_up(kwargs, message, tmp_path):
    plain_learner().oof_preds(2, 1e-2, folds=2, path=tmp_path)
    Trained.count = 0
    other = {**dict(n_epoch=2, lr=1e-2, folds=2), **kwargs}
    with pytest.raises(ValueError, match=message): plain_learner().oof_preds(**other, path=tmp_path)
    assert not Trained.count

def test_a_file_of_the_users_is_not_overwritten(tmp_path):
    (tmp_path/'oof_preds.npy').write_text('mine')
    with pytest.raises(ValueError, match='of unknown origin'): plain_learner().oof_preds(1, path=tmp_path)
    assert (tmp_path/'oof_preds.npy').read_text() == 'mine'

def test_a_function_that_trains():
    seen = []
    def fit(learn):
        learn.fine_tune(2, freeze_epochs=1)
        seen.append(len(learn.recorder.values))
    learn = digits_learner(splitter=lambda m: [params(m[0]), params(m[2])])
    learn.freeze()
    before = [p.requires_grad for p in learn.model.parameters()]
    assert not messages(lambda: learn.oof_preds(fit=fit, folds=2))
    learn.eps_find(fit=fit, show_plot=False)
    assert seen == [2, 2, 2] and [p.requires_grad for p in learn.model.parameters()] == before
    assert 'frozen: 2 of its 4 parameters' in messages(lambda: learn.oof_preds(1, folds=2))[0]

def test_groups_share_a_fold():
    y = torch.arange(120)%3
    groups = [f'patient {i//4}' for i in range(120)]
    fold = fold_of(y, 5, 0, groups)
    assert all(len(set(fold[i:i+4])) == 1 for i in range(0, 120, 4)) and set(fold) == set(range(5))
    learn = plain_learner()
    assert len(learn.oof_preds(1, folds=2, groups=groups)[0]) == 120

def test_unknown_labels_are_not_judged():
    "NaN among several labels, void pixels of a mask of one logit"
    x,y,g = linear_data()
    missing = (y == 1) & (torch.rand(y.shape, generator=g) < .3)
    unknown = torch.rand(y.shape, generator=g) < .2
    labels = torch.where(missing, 0., y).masked_fill(unknown, math.nan)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
    issues = learner_of(list(zip(x, labels)), model, SoftBCEWithLogitsLossFlat()).label_issues(10, 1e-2)
    j = issues.name.to_numpy(dtype=int)
    assert len(issues) > 50 and missing.numpy()[issues.item, j].mean() > .85
    assert not unknown.numpy()[issues.item, j].any() and issues.attrs['n'] == (~unknown).sum()
    pixels,masks = shapes(40)
    masks = (masks == 1).long()[:, None]
    masks[:, :, :4] = 255
    loss = SoftBCEWithLogitsLossFlat(ignore_index=255)
    learn = learner_of(list(zip(pixels, masks)), nn.Conv2d(3, 1, 3, padding=1), loss, bs=16)
    issues = learn.label_issues(2, 1e-2, folds=2, thresh=0)
    assert len(issues) == 40 and issues.in_doubt.max() <= 20*24

@pytest.mark.parametrize('unknown', [math.nan, -1., 255.], ids=['nan', 'minus one', '255'])
def test_unknown_labels_do_not_count_in_the_noise(unknown):
    "`noise_matrix`, `eps_find` and `label_issues` say what they say of the labels that are known"
    x,y,g = linear_data(1200)
    missing = (y == 1) & (torch.rand(y.shape, generator=g) < .3)
    is_unknown = torch.rand(y.shape, generator=g) < .2
    labels = torch.where(missing, 0., y).masked_fill(is_unknown, unknown)
    set_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
    items = list(zip(x, labels))
    loss = SoftBCEWithLogitsLossFlat(ignore_index=-100 if math.isnan(unknown) else unknown)
    learn = quiet(Learner(items_dls(items[:600], items[600:], 64, shuffle=True), model, loss))
    eps = learn.eps_find(10, 1e-2, show_plot=False)
    assert .2 < eps.eps[0] < .4 and eps.eps[1] < .03 and eps.table.attrs['n'] == (~is_unknown[600:]).sum()
    oof = learn.oof_preds(10, 1e-2)
    T = learn.noise_matrix(preds=oof, show_plot=False)
    assert list(T) == ['miss', 'false_pos'] and T.attrs['n'] == (~is_unknown[:600]).sum()
    assert learn.label_issues(preds=oof).attrs['n'] == (~is_unknown[:600]).sum()

def test_the_noise_matrix_of_one_logit_has_two_classes():
    x,y,g = linear_data(800, 1)
    labels = torch.where(torch.rand(y.shape, generator=g) < .15, 1-y, y)
    learn = learner_of(list(zip(x, labels)), nn.Linear(8, 1), BCEWithLogitsLossFlat())
    learn.dls.vocab = ['no', 'yes']
    T = learn.noise_matrix(preds=learn.oof_preds(10, 3e-2), show_plot=False)
    assert list(T.index) == list(T.columns) == ['no', 'yes'] and abs(T.attrs['share']-.15) < .05

def test_the_noise_matrix_refuses_votes():
    items = with_targets(lambda i, y: torch.rand(10).softmax(0))
    learn = learner_of(items, nn.Linear(64, 10), VotesLossFlat())
    p = torch.full((120, 10), .1)
    with pytest.raises(ValueError, match='Votes are not labels that may be wrong'): learn.noise_matrix(preds=p)

def test_masks_and_several_labels_are_judged_by_class_and_single_ones_evenly():
    x,y = shapes(40)
    x_lin,y_lin,_ = linear_data(300)
    conv = nn.Conv2d(3, 3, 3, padding=1)
    several = learner_of(list(zip(x_lin, y_lin)), nn.Linear(8, 4), BCEWithLogitsLossFlat())
    masks = learner_of(list(zip(x, y)), conv, CrossEntropyLossFlat(axis=1), bs=16)
    single = learner_of(list(zip(x_lin, y_lin.argmax(1))), nn.Linear(8, 4), CrossEntropyLossFlat())
    for learn,by_class in ((masks, True), (several, True), (single, False)):
        preds = learn.oof_preds(3, 3e-2, folds=2)
        given = {k: learn.label_issues(preds=preds, thresh=0, by_class=k) for k in (None, True, False)}
        pd.testing.assert_frame_equal(given[None], given[by_class])
        assert not given[None].prob_wrong.equals(given[not by_class].prob_wrong)
