"Soft targets: the math of the modes, and a tensor that looks dense in every operation"
import io, math, pickle
from copy import copy, deepcopy
import numpy as np, pytest, torch, torch.nn.functional as F
from hypothesis import given, strategies as st
from pytest import param
from torch import tensor
from torch.testing import assert_close
from fastai.data.core import DataLoader
from fastai.data.load import fa_collate
from fastai.torch_core import TensorBase, TensorCategory, retain_type, to_concat, to_detach, to_device
from fastai_labelsmooth.all import *
from fastai_labelsmooth.eps import binary_on_off

modes = st.sampled_from(['exact', 'paper'])

def by_hand(index, n, on, off, axis=-1, ignore_index=-100):
    "The dense soft target, one position at a time"
    out = torch.zeros(*index.shape, n, dtype=torch.float64)
    for pos in np.ndindex(*index.shape):
        if index[pos] == ignore_index: continue
        out[pos] = torch.as_tensor(off, dtype=torch.float64)
        out[pos][index[pos]] = on if isinstance(on, float) else on[index[pos]]
    return out.movedim(-1, axis)

@pytest.mark.parametrize('eps,n,mode,on,off', [
    (.1, 2, 'exact', .9, .1),
    (.1, 2, 'paper', .95, .05),
    (.1, 10, 'exact', .9, .1/9),
    (.1, 10, 'paper', .91, .01),
    (0, 7, 'exact', 1, 0),
    (0, 7, 'paper', 1, 0),
    (.3, 4, 'exact', .7, .1),
    (.99, 3, 'paper', .34, .33)])
def test_on_off_of_known_cases(eps, n, mode, on, off):
    assert on_off(eps, n, mode) == pytest.approx((on, off), abs=1e-12)

@given(st.floats(0, .98), st.integers(2, 5000), modes)
def test_on_off_is_a_distribution_led_by_the_true_class(eps, n, mode):
    if mode == 'exact': eps *= (n-1)/n
    on,off = on_off(eps, n, mode)
    assert on + (n-1)*off == pytest.approx(1)
    assert on > off >= 0

@given(st.floats(0, .98), st.integers(2, 5000))
def test_paper_is_exact_at_the_converted_eps(eps, n):
    assert on_off(eps, n, 'paper') == pytest.approx(on_off(convert_eps(eps, n, to='exact'), n, 'exact'))
    assert convert_eps(convert_eps(eps, n, to='exact'), n, to='paper') == pytest.approx(eps)

@pytest.mark.parametrize('eps,n,mode', [(.1, 2, 'exact'), (.1, 1000, 'paper'), (.4, 10, 'exact')])
def test_logit_gap_gives_the_target_back(eps, n, mode):
    z = torch.zeros(n, dtype=torch.float64)
    z[0] = logit_gap(eps, n, mode)
    assert z.softmax(0)[0].item() == pytest.approx(on_off(eps, n, mode)[0])

def test_logit_gap_of_hard_targets_is_infinite(): assert logit_gap(0., 5) == math.inf

@given(st.lists(st.integers(1, 4), max_size=3), st.integers(2, 6), st.data(), st.sampled_from([-100, 255, 0]))
def test_dense_is_the_target_by_hand(shape, n, data, ignore_index):
    axis = data.draw(st.integers(-len(shape)-1, len(shape)))
    index = torch.randint(0, n, shape)
    if data.draw(st.booleans()): index[torch.rand(shape) < .3] = ignore_index
    soft = smooth_labels(index, n, .1, 'exact', axis, ignore_index)
    want = by_hand(index, n, .9, .1/(n-1), axis, ignore_index)
    assert isinstance(soft, SoftTarget) and soft.shape == want.shape and soft.dtype == torch.float32
    assert_close(soft.dense(), want.float(), rtol=0, atol=1e-7)
    assert type(soft.dense()) is torch.Tensor

def test_on_and_off_are_exact():
    assert smooth_labels(tensor([0]), 2, .1).dense().tolist() == tensor([[.9, .1]]).tolist()

def test_on_and_off_may_differ_by_class():
    index,prior = tensor([[0, 2], [1, -100]]), tensor([.5, .3, .2])
    soft = SoftTarget(index, 3, .9+.1*prior, .1*prior, axis=1)
    assert_close(soft.dense(), by_hand(index, 3, .9+.1*prior, .1*prior, 1).float())
    assert_close(soft.sum(1), tensor([[1., 1.], [1., 0.]]))

@pytest.fixture
def soft(): return smooth_labels(tensor([[1, 0, -100], [2, 2, 1]]), 4, .2, axis=1)

@pytest.mark.parametrize('op', [
    param(lambda o: o.sum(1), id='sum'),
    param(lambda o: o*2, id='times 2'),
    param(lambda o: 1-o, id='1 minus it'),
    param(lambda o: o[0], id='an item'),
    param(lambda o: o[:, 1:3], id='slice'),
    param(lambda o: o.argmax(1), id='argmax'),
    param(lambda o: torch.cat([o, o]), id='cat'),
    param(lambda o: torch.stack([o, o]), id='stack'),
    param(lambda o: o.movedim(1, -1), id='movedim'),
    param(lambda o: o.reshape(2, -1), id='reshape'),
    param(lambda o: o == o.max(), id='equal max'),
    param(lambda o: o.double().mean(), id='mean'),
    param(lambda o: torch.where(o > .5, o, torch.zeros(())), id='where'),
    param(lambda o: torch.lerp(o, o.flip(0), .3), id='lerp'),
    param(lambda o: o.to(torch.int64), id='to int64'),
    param(lambda o: o.half(), id='half'),
    param(lambda o: F.cross_entropy(torch.arange(24.).view(2, 4, 3), o), id='cross_entropy'),
    param(lambda o: o.view(2, 12), id='view'),
    param(lambda o: o.expand(2, 4, 3), id='expand'),
    param(lambda o: torch.zeros(2, 4, 3).copy_(o), id='copy_ from it'),
    param(lambda o: TensorBase(torch.ones(2, 4, 3)) * o, id='times TensorBase'),
    param(lambda o: o @ torch.ones(3, 2), id='matmul'),
    param(lambda o: o.unsqueeze(0), id='unsqueeze'),
    param(lambda o: tensor(o.shape), id='shape')])
def test_operations_see_the_dense_tensor(soft, op):
    a,b = op(soft),op(soft.dense())
    assert a.dtype == b.dtype
    assert_close(a.as_subclass(torch.Tensor)+0, b.as_subclass(torch.Tensor)+0)

def round_trip(o):
    f = io.BytesIO()
    torch.save(o, f)
    f.seek(0)
    return torch.load(f, weights_only=False)

@pytest.mark.parametrize('op', [
    torch.clone,
    torch.detach,
    deepcopy,
    copy,
    param(lambda o: pickle.loads(pickle.dumps(o)), id='pickle'),
    param(round_trip, id='torch.save'),
    param(lambda o: o.to('cpu'), id='to cpu'),
    param(lambda o: o.to(torch.float64), id='to float64'),
    param(lambda o: o.half(), id='half'),
    to_detach,
    param(lambda o: to_device([o], 'cpu')[0], id='to_device'),
    param(lambda o: o.contiguous(), id='contiguous'),
    param(lambda o: o.to('meta'), id='to meta')])
@pytest.mark.parametrize('off', [.1, tensor([.01, .02, .03, .04])], ids=['number', 'by class'])
def test_carried_about_it_stays_a_soft_target(op, off):
    old = SoftTarget(tensor([[1, 0, 255], [2, 2, 1]]), 4, .9, off, axis=1, ignore_index=255)
    new = op(old)
    assert type(new) is SoftTarget and new.shape == old.shape
    assert (new.on, new.axis, new.ignore_index) == (old.on, old.axis, old.ignore_index)
    if new.device.type == 'cpu': assert_close(new.dense().float(), old.dense(), atol=1e-3, rtol=0)
    assert new.device == new.index.device

def test_casts_say_their_dtype(soft):
    assert soft.half().dtype == soft.half().dense().dtype == torch.float16
    assert soft.to(torch.float64).dtype == torch.float64

def test_copies_do_not_share(soft):
    new = soft.clone()
    new.index[0, 0] = 3
    assert soft.index[0, 0] == 1

@pytest.mark.parametrize('op', [
    param(lambda o: o.mul_(2), id='mul_'),
    param(lambda o: o.zero_(), id='zero_'),
    param(lambda o: o.__setitem__(0, 0.), id='setitem'),
    param(lambda o: o.clamp_(0, 1), id='clamp_')])
def test_writing_into_it_is_an_error(soft, op):
    with pytest.raises(TypeError, match='in place'): op(soft)

def test_repr_says_on_and_shape(soft): assert 'on=0.8' in repr(soft) and '(2, 4, 3)' in repr(soft)

@pytest.mark.parametrize('dtype', [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool])
def test_any_integer_is_an_index(dtype):
    assert_close(smooth_labels(tensor([1, 0], dtype=dtype), 2).dense(), tensor([[.1, .9], [.9, .1]]))

def test_fastai_tensors_become_plain(): assert type(smooth_labels(TensorCategory([1, 0]), 2).index) is torch.Tensor

@given(st.integers(2, 6), modes, st.floats(0, .49), st.data())
def test_dense_targets_go_through_the_same_map(n, mode, eps, data):
    probs = torch.rand(3, n, 4).softmax(1)
    probs[0, :, 0] = 0
    got = smooth_labels(probs, n, eps, mode, axis=1)
    on,off = on_off(eps, n, mode)
    want = off + (on-off)*probs
    want[0, :, 0] = 0
    assert type(got) is torch.Tensor
    assert_close(got, want)
    onehot = F.one_hot(torch.arange(n)).float()
    assert_close(smooth_labels(onehot, n, eps, mode), smooth_labels(torch.arange(n), n, eps, mode).dense())

@pytest.mark.parametrize('eps,mode,one,zero', [
    (.1, 'exact', .9, .1),
    (.1, 'paper', .95, .05),
    ((.05, .001), 'exact', .95, .001),
    param([.05, .001], 'paper', .95, .001, id='list'),
    (0, 'exact', 1, 0)])
@pytest.mark.parametrize('dtype', [torch.bool, torch.int64, torch.float32, torch.float64])
def test_smooth_binary_of_any_dtype(eps, mode, one, zero, dtype):
    got = smooth_binary(tensor([[1, 0], [0, 1]], dtype=dtype), eps, mode)
    assert got.dtype == (dtype if dtype.is_floating_point else torch.float32)
    assert_close(got, tensor([[one, zero], [zero, one]], dtype=got.dtype))

def test_smooth_binary_of_a_mixed_target():
    assert_close(smooth_binary(tensor([.25]), (.05, .001)), tensor([.001+.949*.25]))

def test_binary_is_two_classes(): assert binary_on_off(.1, 'paper') == on_off(.1, 2, 'paper')

@given(st.floats(.01, .45), st.integers(2, 8), modes)
def test_desmooth_undoes_smoothing(eps, n, mode):
    truth = torch.rand(5, n, dtype=torch.float64).softmax(1)
    assert_close(desmooth(smooth_labels(truth, n, eps, mode), eps, n, mode), truth)

def test_desmooth_stays_on_the_simplex():
    p = torch.tensor([[.98, .015, .005], [1., 0., 0.], [.4, .3, .3]])
    q = desmooth(p, .1, 3)
    assert_close(q.sum(1), torch.ones(3))
    assert (q >= 0).all()
    assert_close(q[1], tensor([1., 0., 0.]))

@pytest.mark.parametrize('call,error,says', [
    param(lambda: on_off(-.1, 3), ValueError, r'eps=-0.1.*0 <= eps < 1', id='eps below 0'),
    param(lambda: on_off(1, 3), ValueError, 'eps=1', id='eps is 1'),
    param(lambda: on_off(math.nan, 3), ValueError, 'eps=nan', id='eps is nan'),
    param(lambda: on_off('0.1', 3), TypeError, "eps='0.1'", id='eps is text'),
    param(lambda: on_off(True, 3), TypeError, 'eps=True', id='eps is a bool'),
    param(lambda: on_off((.1, .2), 3), TypeError, r'eps=\(0.1, 0.2\)', id='a pair of eps'),
    param(lambda: on_off(.5, 2), ValueError, r'eps=0.5 with n=2.*exact.*0.5', id='eps too large for 2 classes'),
    param(lambda: on_off(.9, 10), ValueError, r'n=10.*0.9', id='eps too large for 10 classes'),
    param(lambda: on_off(.1, 1), ValueError, 'n=1', id='one class'),
    param(lambda: on_off(.1, 0), ValueError, 'n=0', id='no class'),
    param(lambda: on_off(.1, 2.), ValueError, r'n=2\.0', id='n is a float'),
    param(lambda: on_off(.1, 3, 'other'), ValueError, "mode='other'.*'exact' or 'paper'", id='mode'),
    param(lambda: convert_eps(.1, 3, to='x'), ValueError, "to='x'", id='convert_eps to'),
    param(lambda: convert_eps(.1, 1, to='exact'), ValueError, 'n=1', id='convert_eps n'),
    param(lambda: convert_eps(.6, 2, to='paper'), ValueError, 'eps=0.6', id='convert_eps eps'),
    param(lambda: smooth_labels(tensor([0, 3]), 3), ValueError, 'class index 3.*0 to 2', id='index too large'),
    param(lambda: smooth_labels(tensor([-1]), 3), ValueError, 'class index -1', id='index below 0'),
    param(lambda: smooth_labels(tensor([-100]), 3, ignore_index=255), ValueError, 'class index -100.*ignore_index=255',
          id='another ignore_index'),
    param(lambda: smooth_labels(tensor([[.5, .6, 1.1]]), 3), ValueError, r'targ.*1.1.*\[0, 1\]', id='votes above 1'),
    param(lambda: smooth_labels(tensor([[.5, math.nan, .5]]), 3), ValueError, 'targ.*nan', id='votes of nan'),
    param(lambda: smooth_labels(tensor([[.5, .5]]), 3), ValueError, r'shape \(1, 2\).*n=3', id='votes for 2 of 3'),
    param(lambda: smooth_labels([0, 1], 3), TypeError, r'targ=\[0, 1\]', id='a list'),
    param(lambda: smooth_binary(tensor([0, 2])), ValueError, r'targ.*2.*\[0, 1\]', id='labels of 2'),
    param(lambda: smooth_binary(tensor([math.nan])), ValueError, 'targ.*nan', id='labels of nan'),
    param(lambda: smooth_binary(tensor([1]), (.1,)), ValueError, 'eps=.*pair', id='one eps in a tuple'),
    param(lambda: smooth_binary(tensor([1]), (.6, .4)), ValueError, 'sum below 1', id='pair sums to 1'),
    param(lambda: smooth_binary(tensor([1]), (.1, 'x')), TypeError, "eps='x'", id='pair with text'),
    param(lambda: smooth_binary(tensor([1]), (.1, .2), 'x'), ValueError, "mode='x'", id='mode of labels'),
    param(lambda: smooth_binary(tensor([1]), .5), ValueError, 'eps=0.5', id='eps of labels'),
    param(lambda: desmooth(torch.rand(2, 4), .1, 3), ValueError, r'shape \(2, 4\).*n=3', id='desmooth 4 of 3')])
def test_a_wrong_argument_is_refused_in_words(call, error, says):
    with pytest.raises(error, match=says): call()

# What must not become a soft target of other numbers

@pytest.mark.parametrize('op', [
    param(lambda o: to_concat([o, o]), id='to_concat'),
    param(lambda o: retain_type(o*2, o), id='retain_type'),
    param(lambda o: fa_collate([(o,), (o,)])[0], id='fa_collate'),
    param(lambda o: DataLoader([(o,)]*4, bs=2, num_workers=0).one_batch()[0], id='DataLoader'),
    param(lambda o: TensorBase(o), id='TensorBase'),
    param(lambda o: o.as_subclass(torch.Tensor), id='as_subclass'),
    param(lambda o: smooth_labels(o, 4, 0., axis=1), id='smooth_labels'),
    param(lambda o: torch.stack([o]), id='stack')])
def test_what_fastai_makes_of_one_is_dense(soft, op):
    got,want = op(soft),op(soft.dense())
    assert not isinstance(got, SoftTarget)
    assert_close(got.as_subclass(torch.Tensor), want.as_subclass(torch.Tensor))

@pytest.mark.parametrize('op', [
    np.array,
    np.asarray,
    param(lambda o: o.numpy(), id='numpy'),
    param(lambda o: np.array(o.tolist(), dtype=np.float32), id='tolist')])
def test_numpy_sees_the_dense_tensor(soft, op): assert np.array_equal(op(soft), soft.dense().numpy())

@pytest.mark.parametrize('op', [
    param(lambda o: torch.add(torch.ones(()), 1, out=o), id='out'),
    param(lambda o: torch._foreach_mul_([o], 2.), id='foreach'),
    param(lambda o: torch.add(o, 1, out=o), id='out of itself')])
def test_writes_by_other_ways_are_errors_too(soft, op):
    with pytest.raises(TypeError, match='in place'): op(soft)

@pytest.mark.parametrize('on,off', [
    param(tensor(.9, requires_grad=True), .1, id='on'),
    param(.9, torch.full((3,), .05, requires_grad=True), id='off')])
def test_learned_values_are_refused(on, off):
    with pytest.raises(TypeError, match='gradients'): SoftTarget(tensor([0, 1]), 3, on=on, off=off)

@pytest.mark.parametrize('dtype', [torch.uint8, torch.int8])
def test_few_bits_do_not_wrap(dtype):
    "-100 is 156 in 8 bits without a sign"
    index = tensor([156, 3] if dtype is torch.uint8 else [-100, 3], dtype=dtype)
    soft = smooth_labels(index, 200, .1)
    assert soft.sum(1).tolist() == pytest.approx([1., 1.] if dtype is torch.uint8 else [0., 1.])
    with pytest.raises(ValueError, match='class index 200'): smooth_labels(tensor([200], dtype=torch.uint8), 200)

@pytest.mark.parametrize('n', [np.int64(5), np.int32(5)])
def test_numpy_numbers_are_accepted(n):
    assert on_off(np.float32(.1), n) == pytest.approx((.9, .025), rel=1e-6)
    assert smooth_labels(tensor([1]), n, np.float64(.1)).shape == (1, 5)

def test_memory_is_not_given_away(soft):
    assert torch.from_dlpack(soft).equal(soft.dense())
    with pytest.raises(TypeError, match='in place'): soft.share_memory_()
