"Each smoother against its formula, computed another way; what it learns, and what it refuses"
import numpy as np, pytest, torch, torch.nn.functional as F
from copy import copy, deepcopy
from math import exp
from pytest import param
from scipy.ndimage import correlate
from scipy.special import softmax as np_softmax
from torch.testing import assert_close
from fastai.vision.all import *
from fastai_labelsmooth.all import *
from helpers import digits_dls, digits_learner, quiet, weights

def batch(n=4, eps=.1, pred=None, axis=1, ignore_index=-100, sigmoid=False, xb=()):
    "What a smoother is told of a batch"
    return Batch(Task(n, axis, ignore_index, sigmoid), eps, pred, xb)

def values(soft): return (soft.dense() if isinstance(soft, SoftTarget) else soft).double()

def assert_near(got, want, atol=1e-6):
    "Equal up to `atol`, tensors or arrays"
    got,want = (o.double().numpy() if isinstance(o, Tensor) else o for o in (got, want))
    assert_close(got, want, rtol=0, atol=atol)

def matrix(n, seed=0):
    "Rows that sum to 1"
    m = np.random.default_rng(seed).random((n, n))
    return m/m.sum(1, keepdims=True)

def onehot(y, n): return np.eye(n)[np.asarray(y)]

y = tensor([2, 0, 3, 1, 2])

# Rows, priors

def test_rows_are_the_mixture():
    r = matrix(4)
    for eps in (.1, .4): assert_near(values(Rows(r)(y, batch(eps=eps))), (1-eps)*onehot(y, 4)+eps*r[y])

def test_rows_of_votes_are_the_mixture_of_their_rows():
    r,votes = matrix(4),np_softmax(np.random.default_rng(1).normal(size=(6, 4)), 1)
    got = Rows(r)(torch.tensor(votes).float(), batch())
    assert_near(values(got), .9*votes+.1*votes@r)

@pytest.mark.parametrize('shape,axis', [
    param((300, 30), 1, id='items'),
    param((3, 7, 40, 40), 1, id='masks'),
    param((2, 40, 70), 2, id='sequences'),
    param((2, 3, 20, 20, 20), 1, id='volumes'),
    param((9, 4, 5), 0, id='classes first')])
@pytest.mark.parametrize('reduction', ['mean', 'none'])
@pytest.mark.parametrize('ignored', [False, True])
def test_the_loss_of_rows_and_vectors_is_that_in_double_precision(shape, axis, reduction, ignored):
    "Small ones by autograd, large ones by the fused path, piece by piece: value and gradient in double precision"
    n = shape[axis]
    index = torch.randint(0, n, shape[:axis]+shape[axis+1:])
    if ignored: index.view(-1)[::3] = -100
    r = torch.tensor(matrix(n)).float()
    for times in (1, 8):
        z = torch.randn(shape).repeat(*[times if d == (1 if axis == 0 else 0) else 1 for d in range(len(shape))])
        idx = index.repeat(times, *[1]*(index.ndim-1))
        for off in (r[0]*.2, torch.full((n,), .2/n)):
            on = .8 + off
            soft = SoftTarget(idx, n, on, off, axis, -100 if ignored else None)
            a,b = (z.clone().to(dtype).requires_grad_() for dtype in (torch.float32, torch.float64))
            weigh = torch.rand(idx.shape)
            loss = soft_cross_entropy(a, soft, axis, reduction=reduction)
            want = -(soft.dense().double()*b.log_softmax(axis)).sum(axis)
            if reduction == 'none': loss,want = (loss*weigh).sum(),(want*weigh).sum()
            else: want = want.sum()/(idx != -100).sum()
            assert_close(loss.double(), want, rtol=1e-5, atol=1e-6)
            loss.backward()
            want.backward()
            assert_close(a.grad.double(), b.grad, rtol=1e-4, atol=1e-6)

def test_ordinal_rows_follow_their_formula():
    "Against the formula with loops (Diaz & Marathe 2019, equation 1, without the class itself)"
    got = ordinal_rows(5, .7)
    for i in range(5):
        e = [0 if i == j else exp(-.7*abs(i-j)) for j in range(5)]
        assert_near(got[i], np.array(e)/sum(e))

def test_ordinal_rows_are_sord_at_its_eps():
    sord = np_softmax(-np.abs(np.subtract.outer(np.arange(5), np.arange(5)))*1., 1)
    for i in range(5):
        soft = Rows(ordinal_rows(5))(tensor([i]), batch(5, 1-sord[i,i]))
        assert_near(values(soft)[0], sord[i])

def test_similarity_rows_follow_their_formula():
    sim = np.random.default_rng(0).normal(size=(4, 4))
    e = np.exp(sim/.5)*(1-np.eye(4))
    assert_near(similarity_rows(sim, .5), e/e.sum(1, keepdims=True))
    assert_close(similarity_rows(torch.tensor(sim)*1000, 1.).sum(1), torch.ones(4)) # however far apart

class Confused:
    def __init__(self, counts): self.counts = counts
    def confusion_matrix(self): return np.array(self.counts)

def test_rows_are_made_of_a_confusion_matrix():
    r = Rows.from_confusion(Confused([[50, 3, 1], [0, 9, 0], [2, 2, 5]])).r
    assert_close(r, tensor([[0, 4, 2], [1, 0, 1], [3, 3, 0]])/tensor([6., 2, 6])[:,None])

def test_rows_are_made_of_an_interpretation():
    class Named(list): vocab = [list(range(10))]*2
    dls = digits_dls()
    named = [DataLoader(Named(o), bs=64, num_workers=0) for o in (dls.train_ds, dls.valid_ds)]
    learn = digits_learner(dls=DataLoaders(*named))
    learn.fit(2, 1e-2)
    interp = ClassificationInterpretation.from_learner(learn)
    counts = interp.confusion_matrix()+1.
    np.fill_diagonal(counts, 0)
    assert_near(Rows.from_confusion(interp).r, counts/counts.sum(1, keepdims=True))

paths = ['a/x/1', 'a/x/2', 'a/y', 'b/z/w/3', 'b/z/w/4']

# By hand: the common ancestor of 1 and 2 is one step above the leaves, a is two, b/z/w one, the root four
height = np.array([[0, 1, 2, 4, 4], [1, 0, 2, 4, 4], [2, 2, 0, 4, 4], [4, 4, 4, 0, 1], [4, 4, 4, 1, 0]])

def test_tree_rows_follow_the_heights():
    e = np.exp(-3*height/4)*(1-np.eye(5))
    assert_near(tree_rows(paths, 3.), e/e.sum(1, keepdims=True))
    assert tree_rows([p.split('/') for p in paths], 3.).equal(tree_rows(paths, 3.))

def test_tree_rows_are_bertinettos_at_their_eps():
    paper = np_softmax(-5*height/4, 1) # section 3.2, the class itself included
    for i in range(5):
        soft = Rows(tree_rows(paths, 5.))(tensor([i]), batch(5, 1-paper[i,i]))
        assert_near(values(soft)[0], paper[i])

def test_priors_are_the_mixture():
    p = np.array([1, 2, 3, 4])/10
    assert_near(values(Priors([10, 20, 30, 40])(y, batch())), .9*onehot(y, 4)+.1*p)
    labels = torch.randint(0, 2, (6, 4)).float()
    for eps,a,b in ((.1, .1, .1), ((.2, .05), .2, .05)):
        got = Priors(p)(labels, batch(sigmoid=True, eps=eps))
        want = np.where(labels == 1, 1-a+a*p, b*p)
        assert_near(got, want)

# Online

def online_by_hand(preds, targs, n):
    "Loops: the mean prediction of a class's items that were right, uniform for a class without any"
    rows = {k: [] for k in range(n)}
    for p,t in zip(preds, targs):
        if t >= 0 and p.argmax() == t: rows[int(t)].append(np_softmax(p))
    return np.stack([np.mean(rows[k], 0) if rows[k] else np.full(n, 1/n) for k in range(n)])

class Keep(Callback):
    "The predictions and targets of each training batch"
    run_valid,order = False,LabelSmooth.order-1
    def before_epoch(self): self.preds,self.targs = [],[]
    def after_pred(self):
        pred = self.learn.pred.detach()
        self.preds += list(pred.movedim(1, -1).reshape(-1, pred.shape[1]).double().numpy())
        self.targs += self.y.flatten().tolist()

def test_online_is_what_the_last_epoch_said():
    keep,tables = Keep(),[]
    learn = digits_learner([LabelSmooth(.3, Online()), keep])
    class Look(Callback):
        order = LabelSmooth.order+1
        def after_train(self):
            tables.append((self.label_smooth.smoother.matrix.clone(), online_by_hand(keep.preds, keep.targs, 10)))
    learn.fit(3, 1e-2, cbs=Look())
    for got,want in tables: assert_near(got, want, 1e-5)
    assert len(tables) == 3 and not tables[1][0].equal(tables[2][0])

def test_online_is_uniform_at_first():
    assert_near(values(Online()(y, batch(eps=.2))), .8*onehot(y, 4)+.2/4)

def test_online_learns_in_training_alone():
    learn = digits_learner(LabelSmooth(.1, Online(), smooth_valid=True))
    learn.fit(2, 1e-2)
    before = learn.label_smooth.smoother.matrix.clone()
    learn.validate()
    learn.get_preds()
    learn.lr_find(show_plot=False, num_it=5)
    assert before.equal(learn.label_smooth.smoother.matrix) and learn.label_smooth.smoother.sums is None

def test_online_sees_a_mixed_batch_once():
    learn = digits_learner([LabelSmooth(.1, Online()), MixUp()])
    seen = []
    class Look(Callback):
        run_valid = False
        def after_batch(self): seen.append(self.label_smooth.smoother.counts.sum().item())
    learn.fit(1, 1e-2, cbs=Look())
    assert all(b-a <= 64 for a,b in zip([0]+seen, seen)) and seen[-1] > 64

def test_online_leaves_void_out_and_learns_from_votes():
    pred = torch.randn(2, 3, 5, 4)
    index = torch.randint(0, 3, (2, 5, 4))
    index[0] = 255
    mode,flat = Online(),pred.movedim(1, -1).reshape(-1, 3).double().numpy()
    mode.update(index, batch(3, pred=pred, ignore_index=255))
    mode.after_epoch()
    assert_near(mode.matrix, online_by_hand(flat, np.where(index == 255, -1, index).ravel(), 3))
    votes = F.one_hot(index.clamp(max=2), 3).movedim(-1, 1).float()*(index != 255).unsqueeze(1)
    other = Online()
    other.update(votes, batch(3, pred=pred))
    other.after_epoch()
    assert_close(other.matrix, mode.matrix)

def test_online_refuses_another_number_of_classes():
    learn = digits_learner(LabelSmooth(.1, Online()))
    learn.fit(1)
    with pytest.raises(ValueError, match='10 classes'): learn.label_smooth.smoother.check(.1, Task(3))

def test_a_learner_has_a_smoother_of_its_own():
    "What one learns does not reach another, nor the one that was given"
    mode = Online()
    a,b = (digits_learner(LabelSmooth(.1, mode)) for _ in range(2))
    a.fit(1, 1e-2)
    assert mode.matrix is None and b.label_smooth.smoother.matrix is None
    b.fit(1, 1e-2)
    assert a.label_smooth.smoother.matrix.equal(b.label_smooth.smoother.matrix)

def test_online_forgets_an_interrupted_epoch():
    a,b = (digits_learner(LabelSmooth(.1, Online())) for _ in range(2))
    class Stop(Callback):
        def after_batch(self):
            if self.training and self.iter == 3: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): a.fit(1, 0., cbs=Stop())
    a.model.zero_grad()
    for learn in (a, b): learn.fit(1, 0.) # lr 0: the model stays
    assert_close(a.label_smooth.smoother.matrix, b.label_smooth.smoother.matrix)

def test_online_leaves_out_what_is_not_finite():
    mode,pred = Online(),torch.tensor([[math.inf, 0.], [2., 0.], [0., 1.]])
    mode.update(tensor([0, 0, 1]), Batch(Task(2, 1, -100, False), .1, pred))
    mode.after_epoch()
    assert_close(mode.matrix, pred[1:].softmax(1))

def test_online_plots_its_matrix_without_the_diagonal():
    mode = Online()
    with pytest.raises(ValueError, match='learned nothing'): mode.plot()
    learn = digits_learner(LabelSmooth(.1, mode))
    learn.fit(1, 1e-2)
    mode = learn.label_smooth.smoother
    labels = [f'number {i}' for i in range(10)]
    ax = mode.plot(labels)
    assert [o.get_text() for o in ax.get_yticklabels()] == labels
    drawn = ax.images[0].get_array()
    assert np.allclose(drawn.sum(1), 1) and not drawn.diagonal().any()
    with pytest.raises(ValueError, match='names has 3'): mode.plot(['a', 'b', 'c'])
    plt.close('all')

@pytest.mark.slow
def test_two_processes_end_with_the_matrix_of_one(ranks):
    "Each process sees its half of the batches"
    a,b = (o['online'] for o in ranks)
    assert len(a['matrices']) == 2 and a['weights'].equal(b['weights'])
    for one,other,want in zip(a['matrices'], b['matrices'], a['by_hand']):
        assert one.equal(other)
        assert_near(one, want, 1e-5)

# Teacher, Bootstrap

@pytest.mark.parametrize('temp', [1., 3.])
def test_teacher_is_the_mixture_with_its_softmax(temp):
    net,x = nn.Linear(6, 4),torch.randn(5, 6)
    soft = Teacher(net, temp)(y, batch(xb=(x,), pred=torch.randn(5, 4), eps=.3))
    z = x.double()@net.weight.double().T+net.bias.double()
    assert_near(values(soft), .7*onehot(y, 4)+.3*np_softmax(z.detach().numpy()/temp, 1))

class Mixed(nn.Module):
    "Dropout, batch norm, and a part that is not to train"
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm1d(64), nn.Dropout(.5), nn.Linear(64, 10))
        self.frozen = nn.BatchNorm1d(64).eval()
    def forward(self, x): return self.body(self.frozen(x))

def test_teacher_stays_as_it_was():
    net = Mixed()
    state,flags = deepcopy(net.state_dict()),[m.training for m in net.modules()]
    learn = digits_learner(LabelSmooth(.5, Teacher(net)))
    learn.fit(1)
    assert flags == [m.training for m in net.modules()] and flags[0] and not net.frozen.training
    assert all(v.equal(net.state_dict()[k]) for k,v in state.items()) and all(p.grad is None for p in net.parameters())

def test_teacher_may_be_a_learner():
    other = digits_learner(seed=3)
    x = torch.randn(5, 64)
    a,b = (Teacher(o)(y, batch(10, xb=(x,), pred=torch.randn(5, 10))) for o in (other, other.model))
    assert values(a).equal(values(b))
    digits_learner(LabelSmooth(.1, Teacher(other))).fit(1)

def test_teacher_is_not_in_the_export(tmp_path):
    big = nn.Sequential(nn.Linear(64, 2000), nn.Linear(2000, 10))
    tfms = [[lambda i: torch.ones(64)*i/40], [lambda i: i%2, Categorize(vocab=list(range(10)))]]
    dls = Datasets(range(40), tfms, splits=[range(30), range(30, 40)]).dataloaders(bs=10, num_workers=0, device='cpu')
    learn = quiet(Learner(dls, nn.Linear(64, 10), CrossEntropyLossFlat(), cbs=LabelSmooth(.1, Teacher(big, 2.)),
                          path=tmp_path))
    learn.export()
    assert (tmp_path/'export.pkl').stat().st_size < 200_000
    loaded = load_learner(tmp_path/'export.pkl')
    assert loaded.label_smooth.smoother.temp == 2. and loaded.label_smooth.smoother.model is None
    with pytest.raises(ValueError, match='leaves its model out'): loaded.label_smooth.smoother(y, batch())
    assert learn.label_smooth.smoother.model is big

def test_a_copy_asks_the_same_teacher():
    mode = Teacher(nn.Linear(2, 2))
    for other in (copy(mode), deepcopy(mode)): assert other.model is mode.model and other is not mode

def test_a_teacher_of_another_shape_is_refused():
    with pytest.raises(ValueError, match='shape'): digits_learner(LabelSmooth(.1, Teacher(nn.Linear(64, 9)))).fit(1)

def test_teacher_sees_what_the_model_sees():
    "The mixed inputs"
    seen,mine = [],[]
    class Spy(nn.Linear):
        def forward(self, x):
            seen.append(x.clone())
            return super().forward(x)
    class Look(Callback):
        run_valid = False
        def after_pred(self): mine.append(self.x.clone())
    digits_learner([LabelSmooth(.1, Teacher(Spy(64, 10))), MixUp(), Look()]).fit(1)
    assert all(any(x.equal(o) for o in mine) for x in seen) and len(mine) == 8

@pytest.mark.parametrize('eps', [.2, (.3, .05)])
def test_bootstrap_and_teacher_mix_sigmoids(eps):
    pred,labels = torch.randn(5, 3),torch.randint(0, 2, (5, 3)).float()
    a,b = eps if isinstance(eps, tuple) else (eps, eps)
    p = 1/(1+np.exp(-pred.double().numpy()))
    want = np.where(labels == 1, 1-a+a*p, b*p)
    for mode in (Bootstrap(), Teacher(nn.Identity())):
        assert_near(mode(labels, batch(3, eps, pred, sigmoid=True, xb=(pred,))), want)

def test_a_sigmoid_target_of_one_label_keeps_its_shape():
    "(B,) with logits (B, 1)"
    for mode in (Bootstrap(), Priors([.3]), Uniform()):
        assert mode(tensor([1., 0, 1]), batch(1, .1, torch.randn(3, 1), sigmoid=True)).shape == (3,)

def test_bootstrap_has_the_hard_gradient_scaled():
    z = torch.randn(5, 4, requires_grad=True)
    soft = Bootstrap()(y, batch(eps=.3, pred=z.detach()))
    got,hard = (torch.autograd.grad(soft_cross_entropy(z, t), z)[0] for t in (soft, y))
    assert_close(got, .7*hard)

# Spatial

def window(size, sigma, ndim):
    g = np.exp(-np.arange(-(size//2), size//2+1)**2/(2*sigma**2))
    w = g
    for _ in range(ndim-1): w = np.multiply.outer(w, g)
    w[(size//2,)*ndim] = 0
    return w

def spatial_by_filter(index, n, ignore, size, sigma):
    "One filtered one-hot mask for each class, by scipy"
    w,one = window(size, sigma, index.ndim-1),np.stack([(index == k)*1. for k in range(n)], 1)
    sums = np.stack([[correlate(c, w, mode='constant') for c in o] for o in one])
    total = sums.sum(1, keepdims=True)
    return np.where(total > 1e-12, sums/np.maximum(total, 1e-12), one)

@pytest.mark.parametrize('shape', [(2, 7, 6), (2, 5, 4, 6)])
@pytest.mark.parametrize('size,sigma', [(3, 1.), (5, .7), (7, 3.)])
@pytest.mark.parametrize('void', [False, True])
def test_spatial_is_the_filtered_mask(shape, size, sigma, void):
    index = torch.randint(0, 3, shape)
    if void: index[torch.rand(shape) < .4] = 255
    keep = (index != 255).numpy()[:,None]
    r = spatial_by_filter(index.numpy(), 3, 255, size, sigma)
    one = np.stack([(index.numpy() == k)*1. for k in range(3)], 1)
    want = (.6*one+.4*r)*keep
    mode = Spatial(size, sigma)
    assert_near(values(mode(index, batch(3, .4, ignore_index=255))), want, 1e-5)
    last = mode(index, batch(3, .4, axis=len(shape), ignore_index=255)) # classes last
    assert_near(values(last).movedim(-1, 1), want, 1e-5)
    dense = mode(torch.tensor(one).float(), batch(3, .4))
    assert_near(values(dense), want, 1e-5)

@pytest.mark.parametrize('shape', [(1, 9, 8), (1, 6, 7, 6)])
def test_spatial_is_svls_inside(shape):
    "The paper's filter on the one-hot mask: a Gaussian, its centre the sum of the rest, over its sum; borders repeated"
    index = torch.randint(0, 3, shape)
    w = window(3, 1., len(shape)-1)
    w[(1,)*(len(shape)-1)] = w.sum()
    w /= w.sum()
    svls = np.stack([correlate((index[0].numpy() == k)*1., w, mode='nearest') for k in range(3)])
    inside = (slice(None),)+(slice(1, -1),)*(len(shape)-1)
    assert_near(values(Spatial()(index, batch(3, .5)))[0][inside], svls[inside])

def test_spatial_filters_each_label_by_itself():
    labels = torch.randint(0, 2, (2, 3, 6, 5)).float()
    w,ones = window(3, 1., 2),np.ones((6, 5))
    total = correlate(ones, w, mode='constant')
    r = np.stack([[correlate(c, w, mode='constant')/total for c in o] for o in labels.double().numpy()])
    got = Spatial()(labels, batch(3, .4, torch.randn(2, 3, 6, 5), sigmoid=True))
    assert_near(got, .6*labels.numpy()+.4*r, 1e-5)

def test_a_lone_pixel_keeps_its_label():
    index = torch.full((1, 5, 5), 255)
    index[0,2,2] = 1
    got = values(Spatial()(index, batch(3, .5, ignore_index=255)))
    assert got[0,:,2,2].tolist() == [0, 1, 0] and got.sum() == 1

def test_spatial_refuses_what_has_no_space():
    for targ,b in ((y, batch()), (torch.randint(0, 4, (2, 6)), batch(axis=2))):
        with pytest.raises(ValueError, match='expected masks'): Spatial()(targ, b)
    with pytest.raises(ValueError, match='expected masks'): digits_learner(LabelSmooth(.5, Spatial())).fit(1)

# Penalties

@pytest.mark.parametrize('mode,gradient', [
    param(MaxSup(), lambda z, p, n: (z == z.max())-1/n, id='max'),
    param(Margin(1.), lambda z, p, n: np.where(z == z.max(), (z.max()-z > 1).sum(), 0)-(z.max()-z > 1), id='margin'),
    param(ConfidencePenalty(), lambda z, p, n: p*(np.log(p)-(p*np.log(p)).sum()), id='entropy')])
def test_penalties_in_closed_form(mode, gradient):
    z = torch.randn(5, 4, dtype=torch.double)*2
    soft = values(mode(y, batch(eps=.3, pred=z)))
    for row,zi,yi in zip(soft, z.numpy(), y): assert_near(row, onehot(yi, 4)-.3*gradient(zi, np_softmax(zi), 4))

@pytest.mark.parametrize('mode,penalty', [
    param(MaxSup(), lambda z: z.max(1).values-z.mean(1), id='max'),
    param(Margin(1.), lambda z: (z.max(1, keepdim=True).values-z-1).clamp(min=0).sum(1), id='margin'),
    param(ConfidencePenalty(), lambda z: (z.softmax(1)*z.log_softmax(1)).sum(1), id='entropy'),
    param(Penalty(lambda z, axis: z.var(axis)), lambda z: z.var(1), id='own')])
@pytest.mark.parametrize('shape', [(6, 4), (2, 4, 5, 3), (40, 4, 60, 30)])
@pytest.mark.parametrize('ignored', [False, True])
def test_the_loss_is_the_papers(mode, penalty, shape, ignored):
    "Cross-entropy plus eps*R by autograd, mean over the positions that count"
    z = (torch.randn(shape)*2).requires_grad_()
    index = torch.randint(0, 4, shape[:1]+shape[2:])
    if ignored: index[0] = -100
    want = F.cross_entropy(z, index) + .2*(penalty(z)*(index != -100)).sum()/(index != -100).sum()
    soft = mode(index, batch(eps=.2, pred=z.detach()))
    got = soft_cross_entropy(z, soft, axis=1)
    assert_close(got, want, rtol=1e-4, atol=1e-5) # the loss that is logged
    assert_close(*(torch.autograd.grad(o, z)[0] for o in (got, want)), rtol=1e-4, atol=1e-7)

def test_penalties_train_without_gradients_around():
    "Validation runs under no_grad"
    learn = digits_learner(LabelSmooth(.1, MaxSup(), smooth_valid=True))
    learn.fit(1)
    assert learn.recorder.values[0][1] > 0

def test_maxsup_is_paper_smoothing_where_the_model_is_right():
    z = 5*F.one_hot(y, 4).float()+torch.rand(5, 4)
    assert_near(values(MaxSup()(y, batch(eps=.2, pred=z))), values(Uniform('paper')(y, batch(eps=.2))))

# Learners

modes = [Priors(range(1, 11)), Rows(ordinal_rows(10)), Online(), Bootstrap(), MaxSup(), Margin(3.)]

@pytest.mark.parametrize('mode', modes, ids=lambda o: type(o).__name__)
def test_smoothers_train(mode):
    learn = digits_learner(LabelSmooth(.1, mode))
    learn.fit(4, 1e-2)
    assert learn.recorder.values[-1][-1] > .6

# Bad arguments

@pytest.mark.parametrize('make,error,match', [
    param(lambda: Rows([[.5, .6], [.5, .5]]), ValueError, 'row 0 of r sums to 1.1', id='rows sum'),
    param(lambda: Rows([[1.5, -.5], [.5, .5]]), ValueError, 'below 0', id='rows below 0'),
    param(lambda: Rows(torch.ones(2, 3)/3), ValueError, r'shape \(2, 3\)', id='rows not square'),
    param(lambda: Rows('ab'), TypeError, 'r=', id='rows of text'),
    param(lambda: Rows(torch.full((2, 2), float('nan'))), ValueError, 'r', id='rows of nan'),
    param(lambda: LabelSmooth(.1, Rows(ordinal_rows(3)), n=4), ValueError, r'expected \(4, 4\)', id='rows of 3 for 4'),
    param(lambda: LabelSmooth(.6, Rows(ordinal_rows(3))), ValueError, 'eps', id='rows with large eps'),
    param(lambda: Rows.from_confusion([[1, 2], [3, 4]]), TypeError, 'confusion_matrix', id='confusion of a list'),
    param(lambda: ordinal_rows(1), ValueError, 'n=1', id='ordinal of one class'),
    param(lambda: ordinal_rows(3, 0), ValueError, 'beta=0', id='ordinal beta 0'),
    param(lambda: ordinal_rows(3, 'a'), TypeError, "beta='a'", id='ordinal beta text'),
    param(lambda: similarity_rows(torch.ones(2, 3)), ValueError, 'sim', id='similarity not square'),
    param(lambda: similarity_rows(torch.ones(2, 2), -1.), ValueError, 'temp=-1', id='similarity temp below 0'),
    param(lambda: similarity_rows(torch.full((2, 2), float('inf'))), ValueError, 'finite', id='similarity infinite'),
    param(lambda: tree_rows(['a']), ValueError, 'paths', id='tree of one class'),
    param(lambda: tree_rows(['a/b', 'a/b']), ValueError, "'a/b' 2 times", id='tree with a path twice'),
    param(lambda: tree_rows(paths, -1), ValueError, 'beta=-1', id='tree beta below 0'),
    param(lambda: Priors([1, -1]), ValueError, 'negative', id='priors below 0'),
    param(lambda: Priors([0, 0]), ValueError, 'not all 0', id='priors all 0'),
    param(lambda: Priors('a'), TypeError, 'p=', id='priors of text'),
    param(lambda: Priors([[1, 2]]), ValueError, 'p=', id='priors a matrix'),
    param(lambda: LabelSmooth(.1, Priors([1, 2]), n=3), ValueError, 'p has 2 values', id='priors of 2 for 3'),
    param(lambda: Priors([3, 1]).check(.1, Task(2, sigmoid=True)), ValueError, 'shares of ones', id='priors of labels'),
    param(lambda: Spatial(4), ValueError, 'size=4', id='spatial size even'),
    param(lambda: Spatial(1), ValueError, 'size=1', id='spatial size 1'),
    param(lambda: Spatial(3.), TypeError, 'size=3.0', id='spatial size float'),
    param(lambda: Spatial(3, 0), ValueError, 'sigma=0', id='spatial sigma 0'),
    param(lambda: Spatial(3, 'a'), TypeError, 'sigma=', id='spatial sigma text'),
    param(lambda: Margin(0), ValueError, 'm=0', id='margin 0'),
    param(lambda: Margin(-1.), ValueError, 'm=-1', id='margin below 0'),
    param(lambda: Margin('a'), TypeError, "m='a'", id='margin text'),
    param(lambda: Teacher('resnet'), TypeError, "model='resnet'", id='teacher by name'),
    param(lambda: Teacher(nn.Linear(2, 2), 0), ValueError, 'temp=0', id='teacher temp 0'),
    param(lambda: Teacher(nn.Linear(2, 2), 'a'), TypeError, 'temp=', id='teacher temp text'),
    param(lambda: Penalty(3), TypeError, 'func=3', id='penalty no function'),
    param(lambda: Penalty(lambda z, axis: z.logsumexp(axis)), ValueError, 'shift-invariant', id='penalty of shifts'),
    param(lambda: Penalty(lambda z, axis: z.max()), ValueError, r'shape \(2, 3\)', id='penalty of another shape')])
def test_a_wrong_argument_is_refused_in_words(make, error, match):
    with pytest.raises(error, match=match): make()

def test_the_wrong_number_of_classes_is_known_before_training():
    for mode in (Rows(ordinal_rows(9)), Priors(range(1, 10))):
        learn = digits_learner(LabelSmooth(.1, mode))
        before = weights(learn).clone()
        with pytest.raises(ValueError, match='10'): learn.fit(1)
        assert before.equal(weights(learn))

# What must be refused in words

@pytest.mark.parametrize('call,error,says', [
    param(lambda: Rows(torch.eye(3)), ValueError, 'all its mass on the diagonal', id='no mass off the diagonal'),
    param(lambda: LabelSmooth(.6, Priors([1, 0, 0])).smoother.check(.6, Task(3, sigmoid=False)), ValueError,
          'eps < 0.5', id='one class alone'),
    param(lambda: LabelSmooth(.7, 'forward', n=3), ValueError, "eps=0.7 with n=3 in mode='forward'", id='forward')])
def test_a_combination_that_cannot_be_is_refused_in_words(call, error, says):
    with pytest.raises(error, match=says): call()

def test_repr_says_how_much_and_where():
    assert repr(LabelSmooth(.2, 'forward')) == "LabelSmooth(eps=0.2, mode='forward')"

def test_a_narrow_window_still_sees_the_nearest_neighbours():
    mask = tensor([[[0, 1, 0]]*3])
    soft = Spatial(3, .05)(mask, batch(2, .5, sigmoid=False))
    assert soft[0, 0, 1, 1] == pytest.approx(.25) # two of the four nearest are 0

def test_a_calibrated_teacher_keeps_its_temperature():
    learn = digits_learner()
    learn.calibrate(3.)
    assert Teacher(learn).temp == 3. and Teacher(learn, 2.).temp == 6. and Teacher(learn.model).temp == 1.

def test_a_teacher_that_gives_no_tensor_is_refused():
    class Dict(nn.Module):
        def forward(self, x): return {'logits': x}
    z = torch.randn(2, 3)
    with pytest.raises(TypeError, match='a dict: expected one tensor'):
        Teacher(Dict())(tensor([0, 1]), batch(3, pred=z, xb=(z,)))
