"""Series prolonged by the steps that are to be forecast."""

import numpy as np

from rnnx.data import calendar
from rnnx.data.series import Series
from rnnx.errors import UserError


def prolonged(series: Series, horizon: int) -> tuple[Series, list[np.ndarray]]:
    """The series with at least H rows after the last known target, and the row of that, of each.

    Added rows have no targets, the last covariates, and their calendar. Columns of the user's own
    that are known ahead must be there already.

    Raises:
      UserError: when they are not.
    """
    own = [name for name in series.known if name not in calendar.FEATURES]
    features = series.known[len(own) :]
    values, covariates, ahead, times, origins = [], [], [], [], []
    for i, targets in enumerate(series.values):
        known = np.flatnonzero(np.isfinite(targets).any(axis=1))
        if not len(known):
            raise UserError(f"series {series.names[i] or 'in the file'} has no known target")
        origin = int(known[-1])
        missing = origin + 1 + horizon - len(targets)
        if own and missing > 0:
            raise UserError(
                f"{', '.join(own)} must be given for the {horizon} steps after the last target: "
                f"{horizon - missing} rows are there"
            )
        missing = max(missing, 0)
        later = calendar.following(series.times[i], series.step, missing)
        values.append(np.pad(targets, ((0, missing), (0, 0)), constant_values=np.nan))
        covariates.append(np.pad(series.covariates[i], ((0, missing), (0, 0)), mode="edge"))
        beyond = np.zeros((missing, len(series.known)))
        if missing:
            beyond[:, len(own) :] = calendar.features(later, features)
        ahead.append(np.concatenate([series.ahead[i], beyond]))
        times.append(np.concatenate([series.times[i], later]))
        origins.append(np.array([origin]))
    longer = series._replace(values=values, covariates=covariates, ahead=ahead, times=times)
    return longer, origins
