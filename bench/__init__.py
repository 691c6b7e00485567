"""What measures: each figure beside a yardstick that is taken in the same run."""
