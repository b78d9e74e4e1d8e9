# The demo's DeepMIM: mae_digits.py with blocks 3, 4 and 5 supervised, too.
# A demonstration on the CPU, no paper's experiment; `make demo` runs it.
# Global batch size: 128.
_base_ = "./mae_digits.py"

model = dict(type="DeepMIM", backbone=dict(taps=(2, 3, 4)), neck=dict(depth=1))
