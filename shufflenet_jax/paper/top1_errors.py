"""The networks of the paper's Tables 2 to 5, and the top-1 errors on ImageNet that it prints for them, percent."""

# Scale -> groups -> error (Table 2).
TABLE_2 = {
  1.0: {1: 33.6, 2: 32.7, 3: 32.6, 4: 32.8, 8: 32.4},
  0.5: {1: 45.1, 2: 44.4, 3: 43.2, 4: 41.6, 8: 42.3},
  0.25: {1: 57.1, 2: 56.8, 3: 55.0, 4: 54.2, 8: 52.7},
}
# Scale -> groups -> errors without and with channel shuffle (Table 3).
TABLE_3 = {
  1.0: {3: (34.5, 32.6), 8: (37.6, 32.4)},
  0.5: {3: (45.7, 43.2), 8: (48.1, 42.3)},
  0.25: {3: (56.3, 55.0), 8: (56.5, 52.7)},
}
# Scale of the ShuffleNet -> million multiply-adds, groups of the ShuffleNet and its error, and the errors of networks
# of other units (Table 4). The Xception-like network is ShuffleNet with one group: its errors are g=1's in Table 2.
TABLE_4 = {
  1.0: (140, 8, 32.4, {"vgg_like": 50.7, "resnet": 37.3, "xception_like": 33.6, "resnext": 33.3}),
  0.5: (38, 4, 41.6, {"resnet": 48.8, "xception_like": 45.1, "resnext": 46.0}),
  0.25: (13, 8, 52.7, {"resnet": 63.7, "xception_like": 57.1, "resnext": 65.2}),
}
# Scale of the ShuffleNet -> scale of the MobileNet and its error, and the groups of the ShuffleNet and its error
# (Table 5, the pairs whose networks the paper describes completely).
TABLE_5 = {
  2.0: (1.0, 29.4, 3, 26.3),
  1.5: (0.75, 31.6, 3, 28.5),
  1.0: (0.5, 36.3, 8, 32.4),
  0.5: (0.25, 49.4, 4, 41.6),
}
TABLES = (2, 3, 4, 5)
