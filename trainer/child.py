"""The program of training processes, `python -m trainer.child SOCKET NICENESS`; see `trainer.forkserver`.

Nothing is imported at the top: the processes that decode images for a training process import its program again (what
multiprocessing does with every new interpreter), and would wait for torch.
"""

if __name__ == "__main__":
    import sys

    from trainer.forks import serve

    sys.exit(serve(control=int(sys.argv[1]), niceness=int(sys.argv[2])))
