"""The width of intervals of a normal."""

Z95 = 1.959963984540054  # sds on either side of the mean that hold 95 %
