"Train on the CPU in two processes (`helpers.torchrun`), first as usual, then with `Online`; save what each ends with"
import sys, torch
from fastai.basics import *
from fastai.distributed import *
from fastai_labelsmooth.all import *
from helpers import digits_dls, digits_learner, save_rank, weights

bs,n_train,n_valid,epochs,lr = 8,64,31,2,.1

def dataloaders(bs=bs, order=None):
    "Digits in their order, or in the `order` given"
    o = digits_dls(n_train=n_train, n_valid=n_valid)
    train = [o.train_ds[i] for i in order] if order else o.train_ds
    both = [DataLoader(ds, bs=bs, shuffle=False, num_workers=0) for ds in (train, o.valid_ds)]
    return DataLoaders(*both, device='cpu')

def learner(dls=None, cbs=None):
    return digits_learner(L(LabelSmooth(.1, smooth_valid=True))+L(cbs), dls=dls or dataloaders(), opt_func=SGD)

class Kinds(Callback):
    "The kinds of target that are there when a batch is over"
    def before_fit(self): self.kinds = set()
    def after_batch(self): self.kinds |= {type(y).__name__ for y in self.learn.yb}

class Keep(Callback):
    "What all processes together have predicted in each epoch, and the matrix of `Online` after it"
    run_valid,order = False,LabelSmooth.order+1
    def before_fit(self): self.matrices,self.by_hand = [],[]
    def before_epoch(self): self.sums = torch.zeros(10, 11, dtype=torch.double)
    def after_loss(self):
        for p,t in zip(self.learn.pred.detach().double(), self.y):
            if p.argmax() == t: self.sums[t] += torch.cat([p.softmax(0), torch.ones(1)])
    def after_train(self):
        torch.distributed.all_reduce(self.sums)
        n = self.sums[:,10:]
        self.by_hand.append(torch.where(n > 0, self.sums[:,:10]/n.clamp(min=1), .1))
        self.matrices.append(self.label_smooth.smoother.matrix.clone())

def broadcast(self, t, rank):
    "As fastai's, which moves the indices to a GPU even where there is none"
    t = LongTensor(t)
    torch.distributed.broadcast(t, rank)
    return t.tolist()

if __name__ == '__main__':
    torch.set_num_threads(1)
    DistributedDL._broadcast = broadcast
    look,keep = Kinds(),Keep()
    learn = learner(cbs=look)
    with learn.distrib_ctx(sync_bn=False, in_notebook=False):
        learn.fit(epochs, lr)
        kinds = look.kinds # that of both training and validation
        probs,targs = learn.get_preds()
    online = digits_learner([LabelSmooth(.3, Online()), keep], dls=dataloaders(), opt_func=SGD)
    with online.distrib_ctx(sync_bn=False, in_notebook=False): online.fit(2, .5)
    save_rank(sys.argv[1], weights=learn.model.state_dict(), probs=probs, targs=targs, kinds=kinds,
              loss=type(learn.loss_func).__name__,
              online=dict(weights=weights(online), matrices=keep.matrices, by_hand=keep.by_hand))
