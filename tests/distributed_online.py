"Train `Online` on the CPU in two processes (`helpers.torchrun`); each saves its matrices, and what they should be"
import sys, torch
from fastai.basics import *
from fastai.distributed import *
from fastai_labelsmooth.all import *
from distributed_fit import broadcast, dataloaders
from helpers import digits_learner, save_rank, weights

class Keep(Callback):
    "What all processes together have predicted in each epoch, and the matrix that came of it"
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

if __name__ == '__main__':
    torch.set_num_threads(1)
    DistributedDL._broadcast = broadcast
    keep = Keep()
    learn = digits_learner([LabelSmooth(.3, Online()), keep], dls=dataloaders(), opt_func=SGD)
    with learn.distrib_ctx(sync_bn=False, in_notebook=False): learn.fit(2, .5)
    save_rank(sys.argv[1], weights=weights(learn), matrices=keep.matrices, by_hand=keep.by_hand)
