"The loss under torch's transforms, tracers and compiler: each against torch's own loss of the dense target"
import pytest, torch, torch.nn.functional as F
from packaging.version import Version
from pytest import param
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.func import grad, hessian, jacrev, jvp, vmap
from torch.testing import assert_close
from fastai_labelsmooth.all import *

shapes = {'few': (6, 5), 'many': (64, 4096)} # below and above the size from which the loss is fused
sizes = pytest.mark.parametrize('size', shapes)
kinds = pytest.mark.parametrize('kind', ['hard', 'soft', 'dense'])

def case(kind, size='few'):
    "Logits, a target, and the dense target that it is"
    torch.manual_seed(0)
    rows,n = shapes[size]
    inp,index = torch.randn(rows, n),torch.randint(0, n, (rows,))
    targ = dict(hard=index, soft=smooth_labels(index, n, .2), dense=torch.rand(rows, n).softmax(1))[kind]
    return inp,targ,F.one_hot(index, n).float() if kind == 'hard' else targ.dense() if kind == 'soft' else targ

def ours(targ): return lambda z: soft_cross_entropy(z, targ)
def torchs(dense): return lambda z: F.cross_entropy(z, dense)

@sizes
@kinds
@pytest.mark.parametrize('transform', [
    param(grad, id='grad'),
    param(jacrev, id='jacrev'),
    param(lambda f: lambda z: jvp(f, (z,), (torch.ones_like(z)*.1,))[1], id='jvp'),
    param(lambda f: lambda z: grad(lambda x: grad(f)(x).pow(2).sum())(z), id='grad of grad')])
def test_func_transforms_agree(transform, kind, size):
    inp,targ,dense = case(kind, size)
    assert_close(transform(ours(targ))(inp), transform(torchs(dense))(inp), rtol=1e-4, atol=1e-6)

@kinds
def test_hessians_agree(kind):
    inp,targ,dense = case(kind)
    assert_close(hessian(ours(targ))(inp), hessian(torchs(dense))(inp), rtol=1e-4, atol=1e-6)

@kinds
def test_vmap_over_logits_agrees(kind):
    inp,targ,dense = case(kind)
    many = torch.stack([inp, inp*2, -inp])
    assert_close(vmap(ours(targ))(many), torch.stack([torchs(dense)(o) for o in many]))
    assert_close(vmap(grad(ours(targ)))(many), torch.stack([grad(torchs(dense))(o) for o in many]))

@pytest.mark.parametrize('kind', ['hard', 'dense'])
def test_vmap_over_logits_and_targets_agrees(kind):
    "A gradient for each item"
    inp,targ,dense = case(kind)
    def each(f): return vmap(grad(lambda z, t: f(z[None], t[None])))
    assert_close(each(soft_cross_entropy)(inp, targ), each(F.cross_entropy)(inp, targ))

@sizes
@kinds
def test_forward_mode_agrees(kind, size):
    inp,targ,dense = case(kind, size)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(inp, torch.ones_like(inp)*.1)
        a,b = (forward_ad.unpack_dual(f(dual)).tangent for f in (ours(targ), torchs(dense)))
    assert_close(a, b, rtol=1e-4, atol=1e-6)

@sizes
@kinds
def test_traces_agree(kind, size):
    inp,targ,dense = case(kind, size)
    other = inp.flip(0)*2
    for trace in (lambda f: torch.jit.trace(f, inp, check_trace=False), lambda f: make_fx(f)(inp)):
        assert_close(trace(ours(targ))(other), torchs(dense)(other))
    if kind != 'soft': # the target an input as well
        traced = torch.jit.trace(soft_cross_entropy, (inp, targ), check_trace=False)
        assert_close(traced(other, targ.flip(0)), torchs(dense.flip(0))(other))

@sizes
@kinds
def test_compiled_gradients_agree(kind, size):
    inp,targ,dense = case(kind, size)
    torch._dynamo.reset()
    a,b = inp.clone().requires_grad_(),inp.clone().requires_grad_()
    one_graph = kind != 'soft' or Version(torch.__version__) >= Version('2.7') # before, a lazy input breaks the graph
    torch.compile(soft_cross_entropy, fullgraph=one_graph, backend='aot_eager')(a, targ).backward()
    torchs(dense)(b).backward()
    assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)
