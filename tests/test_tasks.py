"LabelSmooth in every task that fastai has a learner for: what its loss sees, and what comes out"
import numpy as np, pandas as pd, pytest, torch, torch.nn.functional as F
from pytest import param
from torch.testing import assert_close
from fastai.vision.all import *
from fastai.text.all import *
from fastai.tabular.all import *
from fastai_labelsmooth.all import *
from helpers import digits, items_learner, quiet

class Spy(Callback):
    "Keeps of each training batch the targets given to the loss, those that others see, the logits and the loss"
    order,run_valid = LabelSmooth.order+1,False
    def before_fit(self): self.soft,self.hard,self.preds,self.losses = [],[],[],[]
    def after_pred(self):
        self.soft.append(self.learn.yb)
        self.preds.append(self.pred.detach() if isinstance(self.pred, Tensor) else None)
    def after_loss(self):
        self.hard.append(self.learn.yb)
        self.losses.append(self.loss.detach())

def values(ts): return sorted(set(torch.cat([t.flatten() for t in ts]).tolist()))
def near(*xs): return pytest.approx(sorted(xs), abs=1e-7)

def assert_paper(spy, axis=1, **kwargs):
    "The loss of each training batch is torch's with label_smoothing=.1, in float64"
    assert spy.losses
    for pred,(y,),got in zip(spy.preds, spy.hard, spy.losses):
        z = pred.double().movedim(axis, 1)
        want = F.cross_entropy(z, y.long().view(z.shape[:1]+z.shape[2:]), label_smoothing=.1, **kwargs)
        assert got.item() == pytest.approx(want.item(), rel=1e-5)

# Multilabel: four labels of each digit

def labels_of(y): return torch.stack([y%2 == 0, y > 4, (y == 2)|(y == 3)|(y == 5)|(y == 7), y == 0], -1)

@pytest.fixture(scope='module')
def multilabel(): return [(x, labels_of(y).float()) for x,y in digits(64)]

bces = [BCEWithLogitsLossFlat(), nn.BCEWithLogitsLoss(), F.binary_cross_entropy_with_logits]

@pytest.mark.parametrize('loss', bces, ids=['fastai', 'torch', 'function'])
@pytest.mark.parametrize('eps,mode,one,zero', [
    (.1, 'exact', .9, .1),
    (.1, 'paper', .95, .05),
    ((.05, .001), 'exact', .95, .001),
    ((.05, .001), 'paper', .95, .001)])
def test_multilabel_sees_soft_labels(multilabel, loss, eps, mode, one, zero):
    learn = items_learner(multilabel, nn.Linear(64, 4), loss, LabelSmooth(eps, mode))
    seen,metric_saw = [],[]
    learn.metrics = [accuracy_multi, lambda p, y: metric_saw.append(y) or accuracy_multi(p, y)]
    hook = learn.loss_func.func.register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    learn.fit(1)
    hook.remove()
    n = len(learn.dls.train)
    assert values(seen[:n]) == near(one, zero) and values(seen[n:]) == [0, 1] and len(seen) == 2*n
    assert values(metric_saw) == [0, 1]
    probs,targs,losses = learn.get_preds(with_loss=True)
    x,y = map(torch.stack, zip(*multilabel))
    assert_close(probs, learn.model(x).sigmoid())
    assert_close(losses, F.binary_cross_entropy(probs, y, reduction='none').mean(1), rtol=1e-4, atol=1e-5)
    assert learn.recorder.values[-1][2] == pytest.approx(((probs > .5) == y.bool()).float().mean().item())

w,pw = torch.tensor([.5, 1., 2., 4.]),torch.tensor([3., 1., .5, 2.])

@pytest.mark.parametrize('loss', [
    param(BCEWithLogitsLossFlat(weight=w, pos_weight=pw, thresh=.8, reduction='sum'), id='fastai'),
    param(nn.BCEWithLogitsLoss(weight=w, pos_weight=pw, reduction='sum'), id='torch')])
def test_multilabel_carries_its_options_over(multilabel, loss):
    spy = Spy()
    learn = items_learner(multilabel, nn.Linear(64, 4), loss, [LabelSmooth((.05, .001)), spy])
    learn.fit(1, 1e-4)
    for pred,(y,),got in zip(spy.preds, spy.hard, spy.losses):
        soft = torch.where(y.bool(), .95, .001).double()
        want = F.binary_cross_entropy_with_logits(pred.double(), soft, w, pos_weight=pw, reduction='sum')
        assert got.item() == pytest.approx(want.item(), rel=1e-5)
    assert learn.loss_func.reduction == 'sum'
    probs,_,decoded = learn.get_preds(with_decoded=True)
    thresh = getattr(loss, 'thresh', .5)
    assert decoded.equal(probs > thresh) and not (probs > .5).equal(probs > .8)

# Binary, with one logit

class OneLogit(Module):
    def __init__(self, column): self.l,self.column = nn.Linear(64, 1),column
    def forward(self, x): return self.l(x) if self.column else self.l(x).squeeze(1)

@pytest.mark.parametrize('loss', bces, ids=['fastai', 'torch', 'function'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.int64, torch.bool])
@pytest.mark.parametrize('targ_column', [False, True])
@pytest.mark.parametrize('pred_column', [False, True])
def test_one_logit_of_any_shape_and_dtype_sees_soft_labels(loss, dtype, targ_column, pred_column):
    def targ(y): return (y > 4).to(dtype)[None] if targ_column else (y > 4).to(dtype)
    items,spy = [(x, targ(y)) for x,y in digits(64)],Spy()
    learn = items_learner(items, OneLogit(pred_column), loss, [LabelSmooth((.05, .001)), spy])
    x,y = map(torch.stack, zip(*items))
    if not isinstance(loss, BCEWithLogitsLossFlat) and targ_column != pred_column: # as in torch
        with pytest.raises(ValueError, match='same as'): loss(learn.model(x), y.float())
        with pytest.raises(ValueError, match='same as'): learn.fit(1)
        return
    learn.fit(3, .1)
    assert values(s for s, in spy.soft) == near(.95, .001)
    assert {h.dtype for h, in spy.hard} == {dtype}
    probs,targs,losses = learn.get_preds(with_loss=True)
    assert_close(probs, learn.model(x).sigmoid())
    assert targs.equal(y)
    want = F.binary_cross_entropy(probs.flatten(), y.flatten().float(), reduction='none')
    assert_close(losses.flatten(), want, rtol=1e-4, atol=1e-5)
    assert ((probs.flatten() > .5) == y.flatten()).float().mean() > .7

# Segmentation

class Shapes:
    "Small pictures of a bright square and a dark one on grey, a line of void between the halves"
    void = 255
    def __init__(self, n=12, size=32):
        rng = np.random.default_rng(0)
        self.ims,self.masks = np.full((n, size, size, 3), 128, np.uint8),np.zeros((n, size, size), np.uint8)
        for im,mask in zip(self.ims, self.masks):
            for c,grey in ((1, 255), (2, 0)):
                i,j = rng.integers(0, size-10, 2)
                im[i:i+10, j:j+10],mask[i:i+10, j:j+10] = grey,c
            mask[size//2] = self.void
    def dls(self, bs=4):
        block = DataBlock((ImageBlock, MaskBlock(['ground', 'bright', 'dark'])), splitter=IndexSplitter(range(8, 12)),
                          get_x=lambda i: self.ims[i], get_y=lambda i: self.masks[i])
        return block.dataloaders(range(12), bs=bs, num_workers=0, device='cpu')

cw = torch.tensor([.2, 1., 2.])

@pytest.fixture(scope='module')
def unet():
    "A trained U-Net with void pixels and class weights, and what its loss saw"
    set_seed(0)
    spy = Spy()
    loss = CrossEntropyLossFlat(axis=1, ignore_index=Shapes.void, weight=cw)
    metrics = [Dice(axis=1), JaccardCoeff(axis=1), DiceMulti(axis=1)]
    learn = quiet(unet_learner(Shapes().dls(), models.resnet18, pretrained=False, n_out=3, loss_func=loss,
                               metrics=metrics, cbs=[LabelSmooth(.1), spy]))
    learn.fit(1, 1e-3)
    return learn,spy

def test_unet_sees_soft_masks(unet):
    learn,spy = unet
    assert isinstance(learn.model, DynamicUnet) and isinstance(learn.dls.one_batch()[1], TensorMask)
    (soft,),(hard,) = spy.soft[0],spy.hard[0]
    assert (type(soft), soft.shape, soft.axis, soft.ignore_index) == (SoftTarget, (4, 3, 32, 32), 1, 255)
    assert (soft.on, soft.off) == on_off(.1, 3)
    assert (soft.sum(1) == 0).equal(hard == 255) and values([hard]) == [0, 1, 2, 255]
    assert len(spy.losses) == 2

def test_unet_loss_weighs_pixels_and_leaves_the_void_out(unet):
    learn,spy = unet
    for pred,(y,),got in zip(spy.preds, spy.hard, spy.losses):
        y,keep = y.long(),y != 255
        q = torch.full((*y.shape, 3), .05).double().scatter_(-1, y.masked_fill(~keep, 0)[..., None], .9)
        each = -(q*pred.double().log_softmax(1).movedim(1, -1)).sum(-1)[keep]
        pixel_w = cw.double()[y[keep]]
        assert got.item() == pytest.approx(((each*pixel_w).sum()/pixel_w.sum()).item(), rel=1e-5)

def test_unet_metrics_and_predictions(unet):
    learn,spy = unet
    valid = learn.validate()
    probs,targs,decoded = learn.get_preds(with_decoded=True)
    assert_close(probs.sum(1), torch.ones(4, 32, 32))
    assert decoded.equal(probs.argmax(1))
    y = targs.long()
    assert valid[0] == pytest.approx(F.nll_loss(probs.log(), y, weight=cw, ignore_index=255).item(), rel=1e-4)
    scores = [2*((decoded == c)&(y == c)).sum()/((decoded == c).sum()+(y == c).sum()) for c in range(3)]
    assert valid[3] == pytest.approx(np.nanmean(scores), rel=1e-4)
    inter,union = (decoded*y).sum().item(),(decoded+y).sum().item() # fastai's Dice and Jaccard count class numbers
    assert list(valid[1:3]) == pytest.approx([2*inter/union, inter/(union-inter)])

def test_unet_results_are_shown(unet):
    learn,spy = unet
    learn.show_results(max_n=2, vmin=0, vmax=2)
    interp = SegmentationInterpretation.from_learner(learn)
    losses,_ = interp.top_losses(4)
    mean_of_pixels = learn.get_preds(with_loss=True)[2]
    assert_close(losses, mean_of_pixels.sort(descending=True).values, rtol=1e-4, atol=1e-5)
    interp.show_results([0, 1])
    interp.plot_top_losses(2)
    plt.close('all')

@pytest.mark.parametrize('conv,size', [(nn.Conv2d, (6, 5)), (nn.Conv3d, (4, 6, 5))])
@pytest.mark.parametrize('loss', [CrossEntropyLossFlat(axis=1), nn.CrossEntropyLoss(), F.cross_entropy])
def test_pictures_and_volumes_have_torchs_loss(conv, size, loss):
    spy,y = Spy(),torch.randint(0, 3, (16, *size))
    items = list(zip(F.one_hot(y).movedim(-1, 1).float(), y))
    learn = items_learner(items, conv(3, 3, 1), loss, [LabelSmooth(.1, 'paper'), spy], bs=8)
    learn.fit(2)
    assert_paper(spy)
    probs,targs = learn.get_preds()
    assert_close(probs, learn.model(torch.stack([x for x,_ in items])).softmax(1))
    assert learn.validate()[0] == pytest.approx(F.nll_loss(probs.log(), targs).item(), rel=1e-4)

# Text

words = dict(angry=['mad', 'cross', 'furious', 'hot'],
             glad=['good', 'fine', 'bright', 'happy', 'warm'],
             sad=['bad', 'dull', 'dark', 'gloomy', 'cold'])

def text_learner(moods, n=60):
    "A learner of the mood of texts of very different lengths, and the table of its validation set"
    rng = np.random.default_rng(0)
    rows = [(m, ' '.join(rng.choice(words[m], rng.integers(1, 40)))) for m in rng.choice(moods, n)]
    df = pd.DataFrame(rows, columns=['mood', 'text'])
    block = DataBlock((TextBlock.from_df('text', seq_len=16, n_workers=1, min_freq=1), CategoryBlock),
                      get_x=ColReader('text'), get_y=ColReader('mood'), splitter=RandomSplitter(.4, seed=0))
    dls = block.dataloaders(df, bs=8, num_workers=0, device='cpu')
    set_seed(0)
    tiny = merge(awd_lstm_clas_config, dict(emb_sz=8, n_hid=12, n_layers=2))
    learn = text_classifier_learner(dls, AWD_LSTM, seq_len=16, config=tiny, drop_mult=.5, pretrained=False,
                                    metrics=accuracy, cbs=LabelSmooth())
    return quiet(learn),df.iloc[block.splitter(df)[1]]

@pytest.fixture(scope='module')
def text_learn():
    learn,df = text_learner(list(words))
    learn.fit_one_cycle(1, 1e-2, moms=(.8, .7, .8))
    return learn,df

def test_text_probabilities_in_dataset_order(text_learn):
    learn,df = text_learn
    probs,targs,losses = learn.get_preds(with_loss=True)
    assert list(learn.dls.vocab[1][t] for t in targs) == df.mood.tolist()
    assert_close(probs.sum(1), torch.ones(len(df)))
    assert_close(losses, -probs[range(len(df)), targs].log(), rtol=1e-4, atol=1e-5)
    one_by_one = torch.stack([learn.predict(t)[2] for t in df.text])
    assert_close(probs, one_by_one, rtol=1e-4, atol=1e-4)
    assert probs.unique(dim=0).shape[0] > len(df)//2 # or any order would do

def test_text_topk_names_the_moods(text_learn):
    learn,df = text_learn
    top,probs = learn.topk(3),learn.get_preds()[0]
    assert top.target.tolist() == df.mood.tolist()
    assert top.pred_1.tolist() == [list(words)[i] for i in probs.argmax(1)]
    assert all(set(row) == set(words) for row in top[['pred_1', 'pred_2', 'pred_3']].values)
    assert np.allclose(top[['prob_1', 'prob_2', 'prob_3']], probs.sort(descending=True).values)

def test_text_topk_of_as_many_classes_as_vocabularies():
    "As many classes as a text learner's vocabulary has parts"
    learn,df = text_learner(['glad', 'sad'])
    assert learn.topk(1).target.tolist() == df.mood.tolist()

def test_a_language_model_makes_no_dense_target(monkeypatch):
    "30,000 words, so that a dense target would be as large as the logits: none is ever made"
    def never(self): raise AssertionError('a dense target was made')
    V,pad = 30_000,1
    toks = [torch.randint(2, V, (80,)) for _ in range(2)]
    for t in toks: t[20:30] = pad
    texts,kw = L(TensorText(t) for t in toks),dict(bs=2, seq_len=16, num_workers=0, device='cpu')
    dls = DataLoaders(LMDataLoader(texts, **kw), LMDataLoader(texts, **kw), device='cpu')
    dls.vocab = [f'w{i}' for i in range(V)]
    spy = Spy()
    tiny = merge(awd_lstm_lm_config, dict(emb_sz=4, n_hid=6, n_layers=1))
    learn = quiet(language_model_learner(dls, AWD_LSTM, config=tiny, pretrained=False, metrics=accuracy,
                                         cbs=[LabelSmooth(.1, 'paper'), spy]))
    learn.loss_func = CrossEntropyLossFlat(ignore_index=pad) # language_model_learner takes none
    monkeypatch.setattr(SoftTarget, 'dense', never)
    learn.fit(1)
    monkeypatch.undo()
    soft, = spy.soft[0]
    assert (type(soft), soft.shape) == (SoftTarget, (2, 16, V))
    assert any((y == pad).any() for y, in spy.hard)
    assert_paper(spy, axis=-1, ignore_index=pad)

# Tabular

def table(n=80):
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(colour=rng.choice(['red', 'blue'], n), size=rng.normal(size=n)))
    df['kind'] = np.where(df['size'] > .5, 'large', np.where(df.colour == 'red', 'fire', 'sea'))
    return df.assign(large=df.kind == 'large', warm=df.colour == 'red')

def tabular(y_names, y_block, **kwargs):
    dls = TabularDataLoaders.from_df(table(), procs=[Categorify, Normalize], cat_names=['colour'], cont_names=['size'],
                                     y_names=y_names, y_block=y_block, valid_idx=list(range(60, 80)), bs=16,
                                     device='cpu', num_workers=0)
    spy = Spy()
    return quiet(tabular_learner(dls, layers=[16], metrics=kwargs.pop('metrics'), cbs=[LabelSmooth(**kwargs), spy])),spy

@pytest.mark.filterwarnings('ignore:The given NumPy array is not writable') # fastai's reading of a pandas table
def test_tabular_has_torchs_loss_and_probabilities():
    learn,spy = tabular('kind', CategoryBlock(), metrics=accuracy, mode='paper')
    learn.fit_one_cycle(8, 3e-2)
    (soft,),(hard,) = spy.soft[0],spy.hard[0]
    assert (type(soft), soft.shape, hard.shape) == (SoftTarget, (16, 3), (16, 1))
    assert_paper(spy)
    probs,targs,losses = learn.get_preds(with_loss=True)
    assert_close(losses, -probs.gather(1, targs.long()).log().squeeze(1), rtol=1e-4, atol=1e-5)
    assert learn.validate()[1] > .6
    row,cls,p = learn.predict(table().iloc[70])
    assert_close(p, probs[10], rtol=1e-4, atol=1e-5)
    assert learn.topk(1).target.tolist() == table().kind[60:].tolist()

def test_tabular_multilabel_sees_soft_labels():
    block = MultiCategoryBlock(encoded=True, vocab=['large', 'warm'])
    learn,spy = tabular(['large', 'warm'], block, metrics=accuracy_multi, eps=(.05, .001))
    learn.fit_one_cycle(4, 3e-2)
    assert values(s for s, in spy.soft) == near(.95, .001)
    assert values(h for h, in spy.hard) == [0, 1]
    assert 0 < learn.get_preds()[0].min() and learn.get_preds()[0].max() < 1

# A detector: the prediction and the target are tuples

class Detector(Module):
    "From each digit: two boxes, and three classes for each"
    def __init__(self): self.boxes,self.logits = nn.Linear(64, 2*4),nn.Linear(64, 2*3)
    def forward(self, x): return self.boxes(x).view(-1, 2, 4),self.logits(x).view(-1, 2, 3)

class DetectorLoss:
    soft_targets = True
    def __init__(self): self.seen = []
    def __call__(self, pred, boxes, labels):
        self.seen.append((boxes, labels))
        return F.l1_loss(pred[0], boxes) + soft_cross_entropy(pred[1], labels, axis=-1)

@pytest.mark.parametrize('targ_idx', [1, -1])
def test_a_detector_smooths_its_classes_alone(targ_idx):
    items = [(x, x[:8].view(2, 4), torch.stack([y%3, y//4])) for x,y in digits(32)]
    loss,spy = DetectorLoss(),Spy()
    learn = items_learner(items, Detector(), loss, [LabelSmooth(.1, targ_idx=targ_idx, n=3), spy])
    learn.dls.n_inp = 1
    learn.fit(1)
    (boxes,soft),(valid_boxes,hard) = loss.seen[0],loss.seen[-1]
    assert (type(soft), soft.shape, soft.on) == (SoftTarget, (16, 2, 3), .9)
    assert boxes.equal(torch.stack([b for _,b,_ in items[:16]])) and type(boxes) is Tensor
    assert valid_boxes.equal(torch.stack([b for _,b,_ in items[16:]]))
    assert hard.equal(torch.stack([l for _,_,l in items[16:]]))
    assert all(type(o) is Tensor for yb in spy.hard for o in yb)

# timm

def test_a_timm_model_has_torchs_loss():
    pytest.importorskip('timm')
    block = DataBlock((ImageBlock, CategoryBlock), get_x=lambda i: Shapes(4).ims[i%4], get_y=lambda i: 'ab'[i%2],
                      splitter=IndexSplitter([6, 7]))
    dls = block.dataloaders(range(8), bs=2, num_workers=0, device='cpu')
    spy = Spy()
    learn = quiet(vision_learner(dls, 'resnet18', pretrained=False, n_out=2, normalize=False,
                                 cbs=[LabelSmooth(.1, 'paper'), spy]))
    assert type(learn.model[0]).__name__ == 'TimmBody'
    learn.fit(1)
    assert_paper(spy)
    assert_close(learn.get_preds()[0].sum(1), torch.ones(2))

# Hints for losses and axes that are nearly right

@pytest.mark.parametrize('loss,says', [
    param(nn.NLLLoss(), 'without the model.s last log_softmax: nn.CrossEntropyLoss', id='NLLLoss'),
    param(F.nll_loss, 'without the model.s last log_softmax', id='nll_loss'),
    param(nn.BCELoss(), 'without the model.s last sigmoid: nn.BCEWithLogitsLoss', id='BCELoss'),
    param(BCELossFlat(), 'without the model.s last sigmoid', id='BCELossFlat'),
    param(type('Mine', (CrossEntropyLossFlat,), {})(), 'derive it from SoftCrossEntropyLossFlat', id='subclass')])
def test_a_loss_that_is_nearly_right_gets_a_hint(loss, says):
    with pytest.raises(TypeError, match=says): soft_loss(loss)

def test_masks_without_axis_1_are_asked_for_it():
    items = [(torch.randn(3, 8, 8), torch.randint(0, 4, (8, 8))) for _ in range(8)]
    learn = items_learner(items, nn.Conv2d(3, 4, 1), CrossEntropyLossFlat(), LabelSmooth())
    with pytest.raises(ValueError, match='was axis=1 meant'): learn.fit(1)

def test_what_does_not_flatten_has_torchs_class_axis():
    z,y = torch.randn(2, 3, 5, 4),torch.randint(0, 3, (2, 5, 4))
    loss = CrossEntropyLossFlat(flatten=False)
    assert_close(soft_loss(loss)(z, y), loss(z, y))
