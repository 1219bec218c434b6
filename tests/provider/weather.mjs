// Bad luck by dice: what happens to a token call, drawn from a seed. The same seed gives the same draws in the same order; which call
// gets which is up to the order in which they come.

const kinds = ['drop_after', 'drop_before', 'late', 'too_late', 'status', 'delay'];

export class Weather {
  constructor(wish) {
    this.wish = wish;
    this.state = (wish.seed >>> 0) || 1;
  }

  // From 0 to 1: Marsaglia's xorshift, 32 bits.
  draw() {
    this.state ^= this.state << 13;
    this.state ^= this.state >>> 17;
    this.state ^= this.state << 5;
    return (this.state >>> 0) / 2 ** 32;
  }

  between([least, most]) {
    return Math.round(least + this.draw() * (most - least));
  }

  // The switch that a call falls under, as `POST /control` would set it; null: it has none.
  luck() {
    let left = this.draw();
    for (const name of kinds) {
      const kind = this.wish[name];
      if (!kind) continue;
      if (left >= kind.share) {
        left -= kind.share;
        continue;
      }
      switch (name) {
        case 'drop_after': return { name, drop: 'after' };
        case 'drop_before': return { name, drop: 'before' };
        case 'late':
        case 'too_late': return { name, late_ms: this.between(kind.ms) };
        case 'status': return { name, status: kind.of[Math.floor(this.draw() * kind.of.length)] };
        default: return { name, delay_ms: this.between(kind.ms) };
      }
    }
    return null;
  }
}
