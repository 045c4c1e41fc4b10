"`Forward`, the loss that knows of wrong labels: against its definition, differentiated by torch in double precision"
import pickle
import numpy as np, pandas as pd, pytest, torch
import torch.nn.functional as F
from pytest import param
from torch import nn, tensor
from fastai.basics import *
from fastai.callback.mixup import MixUp
from sklearn.datasets import load_breast_cancer
from hypothesis import given, strategies as st
from fastai_labelsmooth.all import *
from helpers import digits_dls, digits_learner, items_learner, noisy_digits, quiet, weights

def matrix(n, seed=0, zeros=False):
    "A row-stochastic matrix with the largest entries on the diagonal"
    T = torch.rand(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    if zeros: T *= T > .5
    T = .4*T/T.sum(1, keepdim=True).clamp(min=1e-9)
    return T.fill_diagonal_(0) + torch.diag(1-T.fill_diagonal_(0).sum(1))

def symmetric(n, eps): return torch.full((n, n), eps/(n-1), dtype=torch.double).fill_diagonal_(1-eps)

def definition(z, y, T, axis=1):
    "-log sum_k p_k T[k, y] of each position, in the probabilities as they are"
    p = z.movedim(axis, -1).softmax(-1)
    return -torch.einsum('...k,...k->...', p, T.T[y]).log()

def floored(T): return (1-1e-6)*T + 1e-6/len(T) # no label is impossible

def forward_loss(z, y, smoother, eps, axis=1, weight=None):
    "Ours, of logits of the clean classes"
    batch = Batch(Task(z.shape[axis], axis % z.ndim, -100, False), eps, z.detach())
    return SoftCrossEntropyLossFlat(axis=axis, weight=weight)(smoother.observed(z, batch), smoother(y, batch))

def both(z, y, smoother, eps, T, axis=1, keep=None, weight=None):
    "Loss and gradient of ours and of the definition"
    z1,z2 = (z.clone().requires_grad_() for _ in range(2))
    loss = forward_loss(z1, y, smoother, eps, axis, weight)
    each = definition(z2, y.clamp(min=0), T, axis)
    w = torch.ones_like(each) if weight is None else weight[y.clamp(min=0)]
    if keep is not None: w = w*keep
    want = (each*w).sum()/w.sum()
    return loss,want,*(torch.autograd.grad(o, i)[0] for o,i in ((loss, z1), (want, z2)))

@pytest.mark.parametrize('shape,axis', [
    ((7, 5), 1), # small: composed
    ((2, 6, 5), 2),
    ((2, 5, 3, 4), 1),
    ((40_000, 5), 1), # large: fused
    ((2, 5, 200, 200), 1),
    ((30, 900, 5), -1)])
@pytest.mark.parametrize('kind', ['symmetric', 'matrix', 'zeros'])
@pytest.mark.parametrize('weighted', [False, True])
def test_value_and_gradient_are_those_of_the_definition(shape, axis, kind, weighted):
    z = torch.randn(shape, dtype=torch.double)*3
    y = torch.randint(0, 5, z.movedim(axis, -1).shape[:-1])
    y.view(-1)[::7] = -100
    T = symmetric(5, .3) if kind == 'symmetric' else matrix(5, zeros=kind == 'zeros')
    smoother,eps = (Forward(),.3) if kind == 'symmetric' else (Forward(T),None)
    weight = torch.rand(5, dtype=torch.double)+.1 if weighted else None
    if kind != 'symmetric': T = floored(T)
    loss,want,grad,want_grad = both(z, y, smoother, eps, T, axis, y >= 0, weight)
    assert torch.allclose(loss, want, rtol=1e-10)
    assert torch.allclose(grad, want_grad, atol=1e-12)
    assert (grad.movedim(axis, -1)[y < 0] == 0).all()

@given(st.integers(2, 6), st.floats(0, .49), st.integers(0, 10**6))
def test_the_gradient_is_that_of_the_posterior(n, eps, seed):
    set_seed(seed)
    z,y = torch.randn(9, n, dtype=torch.double, requires_grad=True),torch.randint(0, n, (9,))
    joint = z.softmax(1)*symmetric(n, eps).T[y]
    posterior = joint/joint.sum(1, keepdims=True)
    grad, = torch.autograd.grad(forward_loss(z, y, Forward(), eps), z)
    assert torch.allclose(grad, (z.softmax(1)-posterior)/9, atol=1e-9)

@pytest.mark.parametrize('kind', ['symmetric', 'matrix'])
@pytest.mark.parametrize('many', [6, 40_000])
def test_votes_weigh_the_likelihoods(kind, many):
    z = torch.randn(many, 4, dtype=torch.double)*2
    votes = torch.rand(many, 4, dtype=torch.double).pow(3)
    votes /= votes.sum(1, keepdim=True)
    votes[::5] = 0
    T = symmetric(4, .2) if kind == 'symmetric' else matrix(4)
    smoother,eps = (Forward(),.2) if kind == 'symmetric' else (Forward(T),None)
    z1,z2 = (z.clone().requires_grad_() for _ in range(2))
    loss = forward_loss(z1, votes, smoother, eps)
    want = -(votes*(z2.softmax(1)@(T if kind == 'symmetric' else floored(T))).log()).sum()/(votes.sum(1) > 0).sum()
    assert torch.allclose(loss, want, rtol=1e-10)
    assert torch.allclose(*(torch.autograd.grad(o, i)[0] for o,i in ((loss, z1), (want, z2))), atol=1e-12)

@pytest.mark.parametrize('smoother,eps', [
    param(Forward(), .2, id='symmetric'),
    param(Forward(matrix(3, zeros=True)), None, id='matrix')])
@pytest.mark.parametrize('many', [1, 60_000])
def test_finite_however_sure_the_model_is(smoother, eps, many):
    z = tensor([[1e4, -1e4, 0.], [-1e4, 1e4, -1e4], [0., 0., 1e4]]).repeat(many, 1).requires_grad_()
    for label in range(3):
        y = torch.full((len(z),), label)
        loss = forward_loss(z, y, smoother, eps)
        grad, = torch.autograd.grad(loss, z)
        assert loss.isfinite() and grad.isfinite().all()
        assert grad.sum(1).abs().max() < 1e-6

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_near_the_definition(dtype):
    z,y = torch.randn(50, 6).to(dtype),torch.randint(0, 6, (50,))
    z1 = z.clone().requires_grad_()
    loss = forward_loss(z1, y, Forward(), .2)
    loss.backward()
    want = definition(z.double(), y, symmetric(6, .2)).mean()
    assert loss.dtype == torch.float32 and z1.grad.dtype == dtype
    assert abs(loss.item()-want.item()) < 1e-5

def test_derivatives_pass_gradcheck():
    z,y = torch.randn(4, 3, dtype=torch.double, requires_grad=True),tensor([0, 1, 2, -100])
    for smoother,eps in ((Forward(), .2), (Forward(matrix(3)), None)):
        f = lambda z: forward_loss(z, y, smoother, eps)
        assert torch.autograd.gradcheck(f, z) and torch.autograd.gradgradcheck(f, z)

# Sigmoid

def reported(p, miss, fp): return p*(1-miss) + (1-p)*fp

@pytest.mark.parametrize('eps', [.2, (.4, .1), (.3, 0.), (0., .2), 0.])
@pytest.mark.parametrize('weighted', [False, True])
def test_sigmoid_loss_is_the_likelihood_of_the_reported_labels(eps, weighted):
    miss,fp = eps if isinstance(eps, tuple) else (eps, eps)
    z,y = torch.randn(8, 3, dtype=torch.double)*2,torch.randint(0, 2, (8, 3)).double()
    pos_weight = tensor([1., 2., 3.], dtype=torch.double) if weighted else None
    loss_func = nn.BCEWithLogitsLoss(pos_weight=pos_weight)
    z1,z2 = (z.clone().requires_grad_() for _ in range(2))
    batch = Batch(Task(3, 1, -100, True), eps, z)
    soft,q = Forward()(y, batch),reported(z2.sigmoid(), miss, fp)
    loss = loss_func(Forward().observed(z1, batch), soft)
    want = -(y*q.log()*(1 if pos_weight is None else pos_weight) + (1-y)*(1-q).log()).mean()
    assert torch.allclose(loss, want, rtol=1e-9)
    assert torch.allclose(torch.autograd.grad(loss, z1)[0], torch.autograd.grad(want, z2)[0], atol=1e-12)
    flat = BCEWithLogitsLossFlat(pos_weight=None if pos_weight is None else pos_weight.float())
    observed = Forward().observed(TensorBase(z.float()), batch)
    assert torch.allclose(flat(observed, soft).as_subclass(torch.Tensor), want.float(), rtol=1e-4)

def test_sigmoid_loss_is_finite_at_large_logits():
    z = tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    batch = Batch(Task(2, 1, -100, True), (.3, 0.), z.detach())
    observed = Forward().observed(TensorBase(z), batch)
    loss = BCEWithLogitsLossFlat()(observed, Forward()(tensor([[0., 1.], [0., 1.]]), batch))
    loss.backward()
    # row 1: missed (-log .3), and reported where it cannot be (1e4 + log .7 ...)
    assert loss.isfinite() and z.grad.isfinite().all()

# In a learner

def noisy_cancer(seed, share=.2):
    "Breast cancer with flipped labels in training and validation, and the clean validation labels"
    d = load_breast_cancer()
    set_seed(seed)
    order = torch.randperm(len(d.target))
    x,clean = tensor((d.data-d.data.mean(0))/d.data.std(0)).float()[order],tensor(d.target)[order]
    items = list(zip(x, torch.where(torch.rand(len(x)) < share, 1-clean, clean)))
    return DataLoaders(DataLoader(items[:380], bs=64, shuffle=True), DataLoader(items[380:], bs=189)),clean[380:]

@pytest.mark.slow
def test_better_than_hard_and_smoothed_on_wrong_labels():
    "Over 3 seeds: .85, .87 and .93 right, negative log-likelihood .32, .43 and .24 nats"
    scores = []
    for seed in range(3):
        dls,clean = noisy_cancer(seed)
        for mode,eps in (('exact', 0.), ('exact', .2), ('forward', .2)):
            set_seed(seed)
            model = nn.Sequential(nn.Linear(30, 200), nn.ReLU(), nn.Linear(200, 2))
            learn = quiet(Learner(dls, model, CrossEntropyLossFlat(), cbs=LabelSmooth(eps, mode)))
            learn.fit_one_cycle(40, 1e-2)
            p = learn.get_preds()[0]
            scores.append([(p.argmax(1) == clean).float().mean().item(), F.nll_loss(p.log(), clean).item()])
    hard,smooth,forward = np.array(scores).reshape(3, 3, 2).mean(0)
    assert forward[0] > max(hard[0], smooth[0])+.04
    assert forward[1] < min(hard[1], smooth[1])-.05

def test_both_logged_losses_are_the_likelihood_of_the_labels():
    dls,_ = noisy_digits(.3)
    learn = digits_learner(LabelSmooth(.3, 'forward'), dls=dls)
    learn.fit_one_cycle(3, 1e-2)
    valid_loss = learn.recorder.values[-1][1]
    p,y = learn.get_preds()
    q = p@symmetric(10, .3).float()
    assert abs(valid_loss - F.nll_loss(q.log(), y).item()) < 1e-4
    each = learn.get_preds(with_loss=True)[2]
    assert torch.allclose(each, -q.log().gather(1, y[:, None])[:, 0], atol=1e-4)
    assert torch.equal(learn.get_preds()[1], y) # and the targets are hard again

def test_eps_zero_is_the_plain_loss():
    a,b = (digits_learner(cbs) for cbs in (LabelSmooth(0., 'forward'), LabelSmooth(0.)))
    for o in (a, b):
        set_seed(1)
        o.fit(2)
    assert torch.equal(weights(a), weights(b))

def test_matrix_of_symmetric_noise_trains_the_same_model():
    a,b = (digits_learner(cbs) for cbs in (LabelSmooth(.2, 'forward'), LabelSmooth(mode=Forward(symmetric(10, .2)))))
    for o in (a, b):
        set_seed(1)
        o.fit(2)
    assert torch.allclose(weights(a), weights(b), atol=1e-4)

@pytest.mark.parametrize('cb', [
    param(LabelSmooth(.2, 'forward'), id='symmetric'),
    param(LabelSmooth(mode=Forward(matrix(10))), id='matrix')])
def test_mixup_mixes_the_likelihoods_of_both_labels(cb):
    "The loss is the mixture of the likelihoods of both labels"
    seen = []
    class Seen(Callback):
        order = 99
        def after_pred(self): self.z = self.pred.detach().clone()
        def after_batch(self):
            if not self.training: return
            mix = self.learn.mix_up
            T = symmetric(10, .2).float() if cb.smoother.T is None else floored(cb.smoother.T).float()
            a,b = (definition(self.z, y, T) for y in (self.y, mix.yb1[0]))
            seen.append((self.loss.item(), (mix.lam.view(-1)*a + (1-mix.lam.view(-1))*b).mean().item()))
    learn = digits_learner([cb, MixUp(.4), Seen()])
    learn.fit(1)
    assert len(seen) > 4 and np.allclose(*zip(*seen), rtol=1e-4)

def test_masks_are_scored_without_ignored_pixels():
    x = torch.randn(20, 3, 8, 8)
    y = x.mean(1).gt(0).long() + 2*x[:, 0].gt(1).long()
    y[:, 0] = 255
    loss = CrossEntropyLossFlat(axis=1, ignore_index=255)
    learn = items_learner(list(zip(x, y)), nn.Conv2d(3, 4, 1), loss, LabelSmooth(mode=Forward(matrix(4))), bs=5)
    learn.fit(1)
    valid_loss = learn.recorder.values[-1][1]
    z = learn.get_preds(act=noop)[0]
    keep = y != 255
    want = definition(z, y.masked_fill(~keep, 0), matrix(4).float())[keep].mean()
    assert abs(valid_loss-want.item()) < 1e-4

def test_it_pickles_with_its_matrix(tmp_path):
    learn = digits_learner(LabelSmooth(mode=Forward(matrix(10))))
    assert torch.equal(pickle.loads(pickle.dumps(learn.label_smooth.smoother)).T, learn.label_smooth.smoother.T)

def test_observed_are_the_logits_of_the_label():
    "Logits of the label, of any shape"
    def q(mode, z, eps, task): return mode.observed(z, Batch(task, eps, z))
    z,T = torch.randn(6, 4),matrix(4)
    p,task = z.softmax(1),Task(4, 1, -100, False)
    assert torch.allclose(q(Forward(T), z, None, task).softmax(1), p@floored(T).float(), atol=1e-6)
    assert torch.allclose(q(Forward(), z, .2, task).softmax(1), p@symmetric(4, .2).float(), atol=1e-6)
    labels = q(Forward(), z, (.3, .1), task._replace(sigmoid=True)).sigmoid()
    assert torch.allclose(labels, reported(z.sigmoid(), .3, .1))
    for shape,axis in (((2, 4, 3, 3), 1), ((2, 5, 4), 2), ((4, 7), 0), ((2, 4, 2, 3, 3), 1)):
        z = torch.randn(shape)
        want = (z.softmax(axis).movedim(axis, -1)@floored(T).float()).movedim(-1, axis)
        assert torch.allclose(q(Forward(T), z, None, Task(4, axis, -100, False)).softmax(axis), want, atol=1e-6)

# Bad input

misnamed = pd.DataFrame([[.9, .1], [.1, .9]], ['a', 'b'], ['a', 'c'])

@pytest.mark.parametrize('T,message', [
    param(np.ones((2, 3))/3, r'shape \(2, 3\)', id='not square'),
    param([[.5, .6], [.1, .9]], r'row 0 of T sums to 1\.1', id='sum'),
    param([[1.5, -.5], [0, 1]], r'outside \[0, 1\]', id='below 0'),
    param([[.4, .6], [0., 1.]], r'row 0 of T has 0\.4 on the diagonal and 0\.6', id='diagonal not largest'),
    param([[.5, .5], [0., 1.]], 'row 0', id='diagonal a tie'),
    param([[float('nan'), 1], [0, 1]], r'outside \[0, 1\]', id='nan'),
    param(misnamed, 'same classes', id='names')])
def test_what_is_no_noise_matrix_is_refused(T, message):
    with pytest.raises(ValueError, match=message): Forward(T)

def test_a_dataframe_is_read_by_name():
    df = pd.DataFrame([[.1, .9], [.8, .2]], ['a', 'b'], ['b', 'a'])
    assert torch.allclose(Forward(df).T, tensor([[.9, .1], [.2, .8]]).double())

def test_what_cannot_be_together_is_refused():
    three,bce = LabelSmooth(mode=Forward(matrix(3))),BCEWithLogitsLossFlat()
    with pytest.raises(ValueError, match='with a noise matrix'): LabelSmooth(.1, mode=Forward(matrix(3)))
    with pytest.raises(ValueError, match=r'expected eps < \(n-1\)/n'): LabelSmooth(.5, mode='forward', n=2)
    with pytest.raises(ValueError, match='miss rate'): digits_learner(three, bce)
    with pytest.raises(ValueError, match='of 3 classes'): digits_learner(LabelSmooth(mode=Forward(matrix(3)))).fit(1)
    with pytest.raises(ValueError, match='sigmoid losses'): digits_learner(LabelSmooth((.1, .2), mode='forward'))
    with pytest.raises(ValueError, match='sum below 1'): LabelSmooth((.6, .5), mode='forward')
    with pytest.raises(ValueError, match='class index 12'):
        Forward()(tensor([12]), Batch(Task(10, 1, -100, False), .1, torch.zeros(1, 10)))

def test_a_prediction_that_is_not_one_tensor_is_refused():
    with pytest.raises(TypeError, match='expected one tensor of logits'):
        Forward().observed((1, 2), Batch(Task(3, 1, -100, False), .1, (1, 2)))

# A matrix by name

def named_learner(vocab, **kwargs):
    dls = digits_dls()
    dls.vocab = vocab
    return digits_learner(dls=dls, **kwargs)

def test_a_matrix_by_name_is_put_in_the_order_of_the_vocab():
    vocab,names = list('abcdefghij'),list('jihgfedcba')
    T = matrix(10)
    df = pd.DataFrame(T.numpy(), names, names)
    for mode,k in ((Forward(df), 'T'), (Rows(df), 'r'), (Rows(similarity_rows(df)), 'r')):
        cb = LabelSmooth(None if k == 'T' else .1, mode)
        given = getattr(cb.smoother, k).clone()
        learn = named_learner(vocab, cbs=cb)
        assert getattr(learn.label_smooth.smoother, k).equal(given.flip(0, 1))
        learn.fit(1)
        assert getattr(learn.label_smooth.smoother, k).equal(given.flip(0, 1)) # once
    counts = pd.Series(range(1, 11), names)
    learn = named_learner(vocab, cbs=LabelSmooth(.1, Priors(counts)))
    assert learn.label_smooth.smoother.p.tolist() == list(range(10, 0, -1))
    with pytest.raises(ValueError, match='names the classes.*expected those of the Learner'):
        named_learner(list('abcdefghix'), cbs=LabelSmooth(mode=Forward(df)))
    learn = digits_learner(cbs=LabelSmooth(mode=Forward(df))) # without a vocab: as it stands
    assert torch.allclose(learn.label_smooth.smoother.T, T)
