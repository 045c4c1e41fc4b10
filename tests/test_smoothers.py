"The contract that every smoother keeps: a new one joins by a line in `smoothers`, and is then asked all of this"
import pickle
from copy import deepcopy
from typing import Callable, NamedTuple
import pytest, torch
from torch.testing import assert_close
from fastai.vision.all import *
from fastai_labelsmooth.all import *
from fastai_labelsmooth.smoothers.core import FromFunction
from fastai_labelsmooth.targets import check_soft
from helpers import digits, digits_learner, items_dls, quiet, weights

n = 5

# The situations, and who serves which

class Situation(NamedTuple):
    task:Task
    shape:tuple # of the logits
    hard:bool=True # class indices; if not, votes (sigmoid: of zeros and ones)

situations = dict(
    labels=Situation(Task(n, 1, -100, False), (6, n)),
    mask=Situation(Task(n, 1, -100, False), (2, n, 4, 3)),
    void=Situation(Task(n, 1, 2, False), (2, n, 4, 3)), # a class among the others is not to be learned
    volume=Situation(Task(n, 1, 255, False), (2, n, 2, 4, 3)),
    sequence=Situation(Task(n, 2, -100, False), (2, 6, n)),
    votes=Situation(Task(n, 1, -100, False), (6, n), hard=False),
    votes_mask=Situation(Task(n, 1, -100, False), (2, n, 4, 3), hard=False),
    votes_sequence=Situation(Task(n, 2, -100, False), (2, 6, n), hard=False),
    sigmoid=Situation(Task(n, 1, -100, True), (6, n)),
    sigmoid_mask=Situation(Task(n, 1, -100, True), (2, n, 4, 3)))

space = {'mask', 'void', 'volume', 'votes_mask'}
softmax = space | {'labels', 'sequence', 'votes', 'votes_sequence'}
sigmoid = {'sigmoid', 'sigmoid_mask'}
everything = softmax | sigmoid

class Entry(NamedTuple):
    make:Callable # from a Task
    serves:set
    eps:float=.1
    travels:bool=True # whether it works after being pickled
    likelihood:bool=False # whether the label is compared with another prediction, also in validation
    penalty:Callable=None # R(z, axis) of a loss that is `CE + eps*R`

def halfway(targ, batch):
    "A function as a mode: mass to all classes alike"
    as_exact = Uniform('paper')
    return as_exact(targ, batch)

class FirstValues(nn.Module):
    "A teacher for any inputs: logits made of the inputs' first values along the class axis"
    def __init__(self, task):
        super().__init__()
        self.task,self.drop = task,nn.Dropout(.9)
    def forward(self, x):
        n,axis = self.task.n,self.task.axis
        if x.shape[1:] == (1, 8, 8) and n == 10: x = x.flatten(1) # digits as pictures
        x = x.narrow(axis, 0, n) if x.shape[axis] >= n else x.sum(axis, keepdim=True)
        slopes = torch.linspace(-1, 1, n).view([-1 if d == axis else 1 for d in range(x.ndim)])
        return self.drop(x*slopes)

def learned(task):
    "An Online that has seen an epoch, in which class 1 was never right"
    mode = Online()
    y = torch.arange(task.n).repeat(3)
    pred = torch.randn(len(y), task.n)+3*F.one_hot(y, task.n)
    pred[y == 1,1] = -9
    mode.update(y, Batch(Task(task.n, 1, -100, False), .1, pred))
    mode.after_epoch()
    return mode

def names(task): return [f'{"even" if i%2 == 0 else "odd"}/{i}' for i in range(task.n)]

smoothers = dict(
    priors=Entry(lambda task: Priors(torch.arange(1, task.n+1)/task.n), everything),
    ordinal=Entry(lambda task: Rows(ordinal_rows(task.n)), softmax),
    similarity=Entry(lambda task: Rows(similarity_rows(torch.eye(task.n).roll(1, 0))), softmax),
    tree=Entry(lambda task: Rows(tree_rows(names(task))), softmax),
    online=Entry(learned, softmax, .5),
    online_new=Entry(lambda task: Online(), softmax, .5),
    teacher=Entry(lambda task: Teacher(FirstValues(task), 2.), everything, travels=False),
    bootstrap=Entry(lambda task: Bootstrap(), everything),
    spatial=Entry(lambda task: Spatial(), space | {'sigmoid_mask'}, .5),
    spatial_wide=Entry(lambda task: Spatial(5, 2.), space | {'sigmoid_mask'}, .5),
    maxsup=Entry(lambda task: MaxSup(), softmax, penalty=lambda z, a: z.max(a).values-z.mean(a)),
    margin=Entry(lambda task: Margin(.5), softmax, penalty=lambda z, a: (z.amax(a, True)-z-.5).clamp(min=0).sum(a)),
    confidence=Entry(lambda task: ConfidencePenalty(), softmax,
                     penalty=lambda z, a: -torch.special.entr(z.softmax(a)).sum(a)),
    exact=Entry(lambda task: Uniform('exact'), everything),
    paper=Entry(lambda task: Uniform('paper'), everything, .3),
    forward=Entry(lambda task: Forward(), everything, .2, likelihood=True), # its loss: test_forward.py
    function=Entry(lambda task: FromFunction(halfway), everything))

each_smoother = pytest.mark.parametrize('name', smoothers)
served = pytest.mark.parametrize(
    'name,where', [(k, o) for k,entry in smoothers.items() for o in situations if o in entry.serves])

def hard_targets(task, shape):
    "Class indices of all classes, the first of each item ignored"
    index = torch.randint(0, task.n, shape[:task.axis]+shape[task.axis+1:])
    index.view(-1)[0] = task.ignore_index
    return index

def targets(o):
    "Targets of a situation, one position of them ignored"
    if o.task.sigmoid: return torch.randint(0, 2, o.shape).float()
    if o.hard: return hard_targets(o.task, o.shape)
    votes = torch.rand(o.shape).softmax(o.task.axis)
    return votes * (hard_targets(o.task, o.shape) != o.task.ignore_index).unsqueeze(o.task.axis)

def asked(name, where):
    "A smoother, a target, and the batch that they are in"
    entry,o = smoothers[name],situations[where]
    pred = torch.randn(o.shape)
    return entry.make(o.task),targets(o),Batch(o.task, entry.eps, pred, (torch.randn(o.shape),))

def dense(soft): return (soft.dense() if isinstance(soft, SoftTarget) else soft).as_subclass(Tensor)

def counts(targ, task):
    "Where a target counts"
    if targ.is_floating_point(): return targ.any(task.axis)
    return targ != task.ignore_index

def same_state(a, b):
    "Whether two attribute dictionaries are the same"
    if isinstance(a, Tensor): return isinstance(b, Tensor) and a.equal(b)
    if isinstance(a, dict): return a.keys() == b.keys() and all(same_state(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(same_state, a, b))
    if isinstance(a, partial): return same_state((a.func, a.args, a.keywords), (b.func, b.args, b.keywords))
    if isinstance(a, nn.Module): return same_state(a.state_dict(), b.state_dict()) and a.training == b.training
    return a == b

# What every target must be

@served
def test_the_target_sums_to_what_the_label_sums_to(name, where):
    mode,targ,batch = asked(name, where)
    mode.check(batch.eps, batch.task)
    soft = mode(targ, batch)
    task = batch.task
    assert soft.shape == batch.pred.shape and soft.is_floating_point()
    check_soft(soft, task, batch.pred.shape)
    if task.sigmoid: return
    total = dense(soft).sum(task.axis)
    assert_close(total, counts(targ, task).to(total.dtype))

@served
def test_ignored_positions_are_zeros(name, where):
    mode,targ,batch = asked(name, where)
    if batch.task.sigmoid: return
    rows = dense(mode(targ, batch)).movedim(batch.task.axis, -1)
    assert not rows[~counts(targ, batch.task)].any() and not counts(targ, batch.task).all()

@served
def test_it_is_pure(name, where):
    "Twice the same, no state of its own changed, and neither target nor prediction touched"
    mode,targ,batch = asked(name, where)
    before,state = [o.clone() for o in (targ, batch.pred, *batch.xb)],deepcopy(vars(mode))
    once,twice = (dense(mode(targ, batch)) for _ in range(2))
    assert once.equal(twice) and same_state(state, vars(mode))
    for a,b in zip(before, (targ, batch.pred, *batch.xb)): assert a.equal(b)

@served
def test_the_target_has_no_gradient(name, where):
    mode,targ,batch = asked(name, where)
    soft = mode(targ, batch)
    assert not soft.requires_grad and not dense(soft).requires_grad

@served
def test_half_precision_and_another_order_give_the_same(name, where):
    "Half precision of the prediction is no trouble, nor is the order of the items"
    mode,targ,batch = asked(name, where)
    soft = dense(mode(targ, batch)).float()
    half = batch._replace(pred=batch.pred.bfloat16())
    assert_close(dense(mode(targ, half)).float(), soft, rtol=0, atol=2e-2)
    turned = batch._replace(pred=batch.pred.flip(0), xb=tuple(o.flip(0) for o in batch.xb))
    assert_close(dense(mode(targ.flip(0), turned)).float(), soft.flip(0))

@served
def test_the_loss_is_that_of_the_dense_form(name, where):
    "Value and gradient, whatever form the target comes in; a penalty's loss is what its paper prints"
    mode,targ,batch = asked(name, where)
    entry,task = smoothers[name],batch.task
    if task.sigmoid: return
    soft,z = mode(targ, batch),batch.pred.double().requires_grad_()
    loss = soft_cross_entropy(z, soft, task.axis, reduction='sum')
    want = -(dense(soft).double()*z.log_softmax(task.axis)).sum()
    if entry.penalty:
        label = dense(hard_target(targ, task)).double()
        each = -(label*z.log_softmax(task.axis)).sum(task.axis) + batch.eps*entry.penalty(z, task.axis)
        want = (each*counts(targ, task)).sum()
    assert_close(loss, want, rtol=1e-5, atol=1e-5)
    assert_close(*(torch.autograd.grad(o, z)[0] for o in (loss, want)), rtol=1e-5, atol=1e-6)

@served
def test_class_weights_weigh_by_the_label(name, where):
    "In a Learner, whatever the mode makes of the label, and whatever the model says"
    mode,targ,batch = asked(name, where)
    task = batch.task
    if task.sigmoid: return
    weight = torch.rand(task.n)+.1
    loss_func = SoftCrossEntropyLossFlat(axis=task.axis, ignore_index=task.ignore_index, weight=weight)
    x,n = batch.xb[0],len(targ)
    class Says(nn.Module):
        def __init__(self):
            super().__init__()
            self.z = nn.Parameter(batch.pred.clone())
        def forward(self, x): return self.z
    dls = items_dls(list(zip(x, targ)), bs=n)
    each = []
    class Look(Callback):
        order,run_valid = LabelSmooth.order+1,False
        def after_pred(self):
            with torch.no_grad(): each.append(SoftCrossEntropyLossFlat(
                axis=task.axis, ignore_index=task.ignore_index, reduction='none')(self.pred, self.y))
    learn = quiet(Learner(dls, Says(), loss_func, cbs=[LabelSmooth(smoothers[name].eps, mode), Look()], train_bn=False))
    class Train(Callback):
        order,run_valid = LabelSmooth.order+2,False
        def after_loss(self): self.want = self.learn.loss.item()
    train = Train()
    learn.fit(1, 0., cbs=train)
    label = targ.argmax(task.axis) if targ.is_floating_point() else targ.clamp(0, task.n-1)
    w = weight[label]*counts(targ, task)
    assert train.want == pytest.approx(((each[0]*w).sum()/w.sum()).item(), rel=1e-4)

@served
def test_integer_targets_of_any_width_give_the_same(name, where):
    mode,targ,batch = asked(name, where)
    if targ.is_floating_point(): return
    want = dense(mode(targ, batch))
    assert dense(mode(targ.int(), batch)).equal(want)

@each_smoother
def test_what_it_does_not_serve_it_refuses(name):
    "In words, at the latest with the first batch"
    entry = smoothers[name]
    for where in situations.keys() - entry.serves:
        mode,targ,batch = asked(name, where)
        if where in sigmoid and not entry.serves & sigmoid:
            with pytest.raises(ValueError, match='sigmoid'): mode.check(entry.eps, batch.task)
            with pytest.raises(ValueError, match='sigmoid'):
                digits_learner(LabelSmooth(entry.eps, mode), BCEWithLogitsLossFlat(), n_out=n)
        else:
            with pytest.raises(ValueError, match='expected'): mode(targ, batch)

@each_smoother
@pytest.mark.parametrize('eps,error', [
    (1., ValueError),
    (-.1, ValueError),
    ('.1', TypeError),
    (float('nan'), ValueError)])
def test_eps_is_checked_when_it_is_given(name, eps, error):
    entry = smoothers[name]
    with pytest.raises(error, match='eps='): LabelSmooth(eps, entry.make(Task(n)))

# In a Learner

class Shapes(nn.Module):
    "A class for each pixel of a digit: background, ink or between"
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
    def forward(self, x): return self.conv(x)

def pixels(n_items=48):
    "Digits as pictures, with a class for each pixel"
    items = [x.view(1, 8, 8) for x,_ in digits(n_items)]
    return [(x, (x[0] > .3).long()+(x[0] > .7).long()) for x in items]

class Items(list):
    "A dataset that an export can leave empty"
    def new_empty(self): return Items()

def loaders(train, valid): return items_dls(Items(train), Items(valid), shuffle=True)

def learner(name, cbs=None, mode=None, plain=False, **kwargs):
    "A small quiet Learner of a task that the smoother serves, and its task"
    entry = smoothers[name]
    set_seed(0) # a DataLoader draws its order from now on
    if 'labels' in entry.serves:
        items = digits(128)
        dls,model = loaders(items[:96], items[96:]),nn.Linear(64, 10)
        loss,task = CrossEntropyLossFlat(),Task(10, 1, -100, False)
    else:
        dls,model = loaders(pixels(), pixels(16)),Shapes()
        loss,task = CrossEntropyLossFlat(axis=1),Task(3, 1, -100, False)
    for p in model.parameters(): p.data.uniform_(-.1, .1)
    if plain: loss = soft_loss(loss)
    else: cbs = L(LabelSmooth(entry.eps, mode or entry.make(task)))+L(cbs)
    return quiet(Learner(dls, model, loss, cbs=cbs, **kwargs))

@each_smoother
def test_it_pickles(name):
    entry = smoothers[name]
    mode,targ,batch = asked(name, next(iter(o for o in situations if o in entry.serves)))
    other = pickle.loads(pickle.dumps(mode))
    assert repr(other) == repr(mode)
    if entry.travels: assert dense(other(targ, batch)).equal(dense(mode(targ, batch)))
    else:
        with pytest.raises(ValueError, match='expected'): other(targ, batch)

@each_smoother
def test_it_goes_through_export(name, tmp_path):
    "The state that it has learned comes along; predictions are those of the Learner that left"
    learn = learner(name, path=tmp_path)
    learn.fit(1)
    learn.export('it.pkl')
    loaded = load_learner(tmp_path/'it.pkl')
    dl = learn.dls.valid
    for a,b in zip(learn.get_preds(dl=dl), loaded.get_preds(dl=dl)): assert_close(a, b)
    a,b = learn.label_smooth.smoother,loaded.label_smooth.smoother
    assert type(a) is type(b) and (not smoothers[name].travels or same_state(vars(a), vars(b)))
    before = weights(learn)
    learn.fit(1)
    assert not torch.equal(before, weights(learn)) # the one that left goes on

@each_smoother
@pytest.mark.parametrize('mixer', [MixUp, CutMix])
def test_with_a_mixer_it_is_the_loss_of_the_mixed_target(name, mixer):
    entry,seen,mix = smoothers[name],[],mixer()
    class Look(Callback):
        run_valid,order = False,LabelSmooth.order-1
        def after_pred(self): # the targets are hard still
            pred,mode,task = self.pred.detach(),self.label_smooth.smoother,task_of(mix.old_lf, self.pred)
            batch = Batch(task, entry.eps, pred, self.xb)
            a,b = (mode(o, batch) for o in (self.y, mix.yb1[0]))
            extra = [o.extra if getattr(o, 'extra', None) is not None else 0. for o in (a, b)]
            a,b = dense(a).double(),dense(b).double()
            lam = mix.lam.view(-1, *[1]*(pred.ndim-1)).double()
            logp = pred.double().log_softmax(task.axis)
            target = lam*a + (1-lam)*b
            self.want = (extra[0] - (target*logp).sum(task.axis)).mean().item() # the same for both labels
            self.want_grad = (logp.exp()-target)/target.select(task.axis, 0).numel()
        def after_loss(self):
            grad, = torch.autograd.grad(self.learn.loss_grad, self.learn.pred, retain_graph=True)
            if not entry.likelihood: assert_close(grad.double(), self.want_grad, rtol=1e-4, atol=1e-6)
            seen.append((self.loss.item(), self.want))
    dls_shape = (1, 8, 8) if mixer is CutMix else None
    learn = learner(name, [mix, Look()])
    if dls_shape and 'labels' in entry.serves: # CutMix takes pictures only
        items = [(x.view(dls_shape), y) for x,y in learn.dls.train_ds]
        learn.dls = loaders(items, items)
        learn.model = nn.Sequential(nn.Flatten(), learn.model)
    learn.fit(2, 1e-2)
    assert len(seen) >= 4
    for got,want in seen: assert entry.likelihood or got == pytest.approx(want, rel=1e-5)

@each_smoother
def test_eps_0_trains_as_without_it(name):
    "Bit for bit"
    trained = []
    for plain in (False, True):
        learn = learner(name, plain=plain)
        if not plain: learn.label_smooth.eps = 0.
        set_seed(1)
        learn.fit(2, 1e-2)
        trained.append(weights(learn))
    assert trained[0].equal(trained[1])

@each_smoother
def test_validation_is_not_smoothed_unless_asked(name):
    learn = learner(name)
    learn.fit(1, 1e-2)
    valid = learn.validate()[0]
    learn.remove_cb(LabelSmooth)
    assert (valid == learn.validate()[0]) != smoothers[name].likelihood
