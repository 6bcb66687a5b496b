"""A data race made on purpose: two threads compute the softmax of the same rows. The sanitizer has to find it."""

import threading

import numpy as np

from csoftmax import _kernels

z = np.zeros((200_000, 10))
threads = [threading.Thread(target=_kernels.softmax_rows, args=(z, 0, len(z), False)) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
