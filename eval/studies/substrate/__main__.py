"""The command of the substrate study, which study.py describes."""

from eval.studies.substrate.study import main

if __name__ == "__main__":
    main()
