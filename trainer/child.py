"""The program of a training process, `python -m trainer.child INCREMENT ATTEMPT FOLDER`; see `trainer.childprocess`.

Nothing is imported at the top: the processes that decode images for this one import its program again (what
multiprocessing does with every new interpreter), and would wait for torch.
"""

if __name__ == "__main__":
    import sys

    from trainer.childrun import main

    sys.exit(main())
