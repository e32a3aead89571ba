"""What is compared: one file per model. 要比较的模型，一个文件一个。"""
