"""A trial beside `make tiny`: the vision tower goes on from cells_tiny.py, on pictures of four things as well.

    python -m tools.train configs/scan_tiny.py --workdir out/tiny/scan

A picture of four things says as much of each as four pictures. Expect 1.24 / 1.14 / 1.11 / 1.09 nats a cell after 400 /
1,200 / 2,000 / 2,900 steps (1.18 before), 0.66 in training at the end; 73 minutes on two cores, with the first 20,000
pictures of `looking`. Read off the tower by the head of this stage (by a script that was not kept), 59 % of the
names of 475 other pictures in the styles of training are right (before 41), and 32 % of 728 in the unseen style (27).

Then 560 steps of align_tiny.py with this tower came to 0.569 / 0.531 / 0.509 nats a token after 160 / 320 / 480 (there
0.597 / 0.566 / 0.549): of the 3,000 held-out examples 93 % of the colours were right, 57 % of the counts, 31 % of the
names, 48 % of the positions and 2.8 % of several things; of other pictures in styles that it knows 92, 63, 56 and 52 %;
of videos 51 % of what moved. It is not shipped: names in the unseen style are no better, positions a little worse, and
the samples' butterfly is called a stethoscope, seven tenths of the way as well.

What lacks is not seeing but seeing alike in other styles: a further 1,200 steps, on 24,000 pictures whose drawings were
also warped, painted in few other colours, blurred or put between both styles, left these names at 33 % and raised the
held-out loss to 1.18, for it learnt so few pictures by heart.
"""

from configs.tiny_stages import SCANNED, telling

config = telling("cells_model", SCANNED, steps=2_900)
