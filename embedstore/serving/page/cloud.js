// A million points in memory: in random order, so that the first of them are a fair sample, and in the cells of a grid, so that
// the nearest point and the points inside a drawn line are found without looking at all of them. Knows no canvas.

const SEED = 0x9e3779b9;

function shuffled(rows) {
  let seed = SEED;
  for (let i = rows.length - 1; i > 0; i -= 1) {
    seed ^= seed << 13; seed ^= seed >>> 17; seed ^= seed << 5;
    const j = (seed >>> 0) % (i + 1);
    const kept = rows[i];
    rows[i] = rows[j];
    rows[j] = kept;
  }
  return rows;
}

function finite(xy) {
  const rows = new Uint32Array(xy.length / 2);
  let n = 0;
  for (let row = 0; row < rows.length; row += 1) if (Number.isFinite(xy[2 * row]) && Number.isFinite(xy[2 * row + 1])) rows[n++] = row;
  return rows.subarray(0, n);
}

export class Cloud {
  /** `xy`: float32 x, y of each row in the store's order, in [-1, 1]. Rows without a place (NaN) are left out. */
  constructor(xy) {
    this.rows = shuffled(finite(xy)); // point -> row of the store
    this.n = this.rows.length;
    this.total = xy.length / 2;
    this.xy = new Float32Array(2 * this.n);
    this.bounds = this.n ? [Infinity, Infinity, -Infinity, -Infinity] : [-1, -1, 1, 1]; // left, low, right, high
    for (let i = 0; i < this.n; i += 1) this.put(i, xy[2 * this.rows[i]], xy[2 * this.rows[i] + 1]);
    this.side = this.n > 20_000 ? 512 : 96;
    this.fill();
  }

  put(i, x, y) {
    this.xy[2 * i] = x;
    this.xy[2 * i + 1] = y;
    const { bounds } = this;
    if (x < bounds[0]) bounds[0] = x;
    if (y < bounds[1]) bounds[1] = y;
    if (x > bounds[2]) bounds[2] = x;
    if (y > bounds[3]) bounds[3] = y;
  }

  /** The column or row of cells that a coordinate is in. */
  cell(value) {
    return Math.max(0, Math.min(this.side - 1, Math.floor(((value + 1) / 2) * this.side)));
  }

  /** The coordinate of the middle of a row of cells. */
  middle(cell) {
    return ((cell + 0.5) / this.side) * 2 - 1;
  }

  fill() {
    const { n, side, xy } = this;
    const of = new Uint32Array(n);
    this.start = new Uint32Array(side * side + 1);
    for (let i = 0; i < n; i += 1) {
      of[i] = this.cell(xy[2 * i + 1]) * side + this.cell(xy[2 * i]);
      this.start[of[i] + 1] += 1;
    }
    this.densest = this.start.reduce((most, count) => Math.max(most, count), 0);
    for (let c = 0; c < side * side; c += 1) this.start[c + 1] += this.start[c];
    const at = this.start.slice();
    this.points = new Uint32Array(n); // the points, cell by cell
    for (let i = 0; i < n; i += 1) this.points[at[of[i]]++] = i;
  }

  /** The rows of the store of some points, in the store's order. */
  rowsOf(points) {
    const has = new Uint8Array(this.total);
    for (const point of points) has[this.rows[point]] = 1;
    const rows = new Uint32Array(points.length);
    let n = 0;
    for (let row = 0; row < this.total; row += 1) if (has[row]) rows[n++] = row;
    return rows;
  }

  /** The visible point nearest to (x, y) within `radius`, or -1. */
  nearest(x, y, radius, visible) {
    let best = -1;
    let least = radius * radius;
    for (let row = this.cell(y - radius); row <= this.cell(y + radius); row += 1) {
      const first = this.start[row * this.side + this.cell(x - radius)];
      const last = this.start[row * this.side + this.cell(x + radius) + 1];
      for (let at = first; at < last; at += 1) {
        const i = this.points[at];
        const distance = (this.xy[2 * i] - x) ** 2 + (this.xy[2 * i + 1] - y) ** 2;
        if (distance < least && visible(i)) {
          least = distance;
          best = i;
        }
      }
    }
    return best;
  }

  /**
   * The points inside a closed line (even-odd), `line`: [[x, y], …]; only those that are `visible`, where that is given.
   * Exact: in the cells that the line crosses the points are tested one by one, the other cells are in or out as a whole.
   */
  inside(line, visible = null) {
    if (line.length < 3) return new Uint32Array(0);
    const crossed = this.crossed(line);
    const found = new Uint32Array(this.n);
    let n = 0;
    const [low, high] = span(line.map(([, y]) => y));
    for (let row = this.cell(low); row <= this.cell(high); row += 1) {
      const cuts = crossings(line, this.middle(row));
      let next = 0; // the first cut to the right of the column
      for (let column = 0; column < this.side; column += 1) {
        while (next < cuts.length && cuts[next] <= this.middle(column)) next += 1;
        const c = row * this.side + column;
        if (crossed[c]) n = this.tested(c, found, n, (i) => contains(line, this.xy[2 * i], this.xy[2 * i + 1]) && (!visible || visible(i)));
        else if ((cuts.length - next) % 2 === 1) n = this.tested(c, found, n, visible);
      }
    }
    return found.slice(0, n);
  }

  /** Adds the points of a cell that pass the test to `found`, which has `n`, and says how many it has then. */
  tested(c, found, n, passes) {
    const points = this.points.subarray(this.start[c], this.start[c + 1]);
    if (!passes) {
      found.set(points, n);
      return n + points.length;
    }
    for (const i of points) if (passes(i)) found[n++] = i;
    return n;
  }

  /** Which cells an edge of the line touches. */
  crossed(line) {
    const crossed = new Uint8Array(this.side * this.side);
    for (let k = 0; k < line.length; k += 1) {
      const [ax, ay] = line[k];
      const [bx, by] = line[(k + 1) % line.length];
      const [low, high] = span([ay, by]);
      for (let row = this.cell(low); row <= this.cell(high); row += 1) {
        const [from, to] = this.reach(ax, ay, bx, by, row);
        crossed.fill(1, row * this.side + from, row * this.side + to + 1);
      }
    }
    return crossed;
  }

  /** The first and last column that the edge a–b passes in a row of cells, one more on each side for rounding. */
  reach(ax, ay, bx, by, row) {
    const edge = (value) => (value / this.side) * 2 - 1;
    let from = ax;
    let to = bx;
    if (ay !== by) {
      const at = (y) => ax + ((Math.max(Math.min(ay, by), Math.min(Math.max(ay, by), y)) - ay) / (by - ay)) * (bx - ax);
      // The outermost rows also hold what lies beyond the square, so an edge out there counts whole.
      from = row === 0 ? (ay < by ? ax : bx) : at(edge(row));
      to = row === this.side - 1 ? (ay < by ? bx : ax) : at(edge(row + 1));
    }
    return [Math.max(0, this.cell(Math.min(from, to)) - 1), Math.min(this.side - 1, this.cell(Math.max(from, to)) + 1)];
  }
}

function span(values) {
  return [Math.min(...values), Math.max(...values)];
}

/** Where the line cuts the horizontal at y, from left to right. */
function crossings(line, y) {
  const cuts = [];
  for (let k = 0; k < line.length; k += 1) {
    const [ax, ay] = line[k];
    const [bx, by] = line[(k + 1) % line.length];
    if (ay > y !== by > y) cuts.push(ax + ((y - ay) / (by - ay)) * (bx - ax));
  }
  return cuts.sort((a, b) => a - b);
}

/** Whether (x, y) is inside the line: an odd number of its edges lie to the right. */
export function contains(line, x, y) {
  let inside = false;
  for (let k = 0, before = line.length - 1; k < line.length; before = k, k += 1) {
    const a = line[before];
    const b = line[k];
    if (a[1] > y !== b[1] > y && a[0] + ((y - a[1]) / (b[1] - a[1])) * (b[0] - a[0]) > x) inside = !inside;
  }
  return inside;
}
