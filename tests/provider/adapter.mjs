// The provider's storage: one Map for all kinds. The library's own keeps at most 1,000 things, and a suite with many
// logins would see sessions vanish.

const kept = new Map(); // "Kind:id" → { payload, until } with `until` in milliseconds since the epoch

function alive(key) {
  const found = kept.get(key);
  if (found && found.until <= Date.now()) kept.delete(key);
  return kept.get(key)?.payload;
}

export function entries(kind) {
  return [...kept.keys()].filter((key) => key.startsWith(`${kind}:`)).map(alive).filter(Boolean);
}

export class MapAdapter {
  constructor(kind) {
    this.kind = kind;
  }

  static forget(which) {
    const doomed = [...kept].filter(([key, { payload }]) => which(key.slice(0, key.indexOf(':')), payload));
    doomed.forEach(([key]) => kept.delete(key));
    return doomed.length;
  }

  async upsert(id, payload, expiresIn) {
    kept.set(`${this.kind}:${id}`, { payload, until: expiresIn ? Date.now() + expiresIn * 1000 : Infinity });
  }

  async find(id) {
    return alive(`${this.kind}:${id}`);
  }

  async findByUid(uid) {
    return entries(this.kind).find((payload) => payload.uid === uid);
  }

  async findByUserCode(code) {
    return entries(this.kind).find((payload) => payload.userCode === code);
  }

  async consume(id) {
    const payload = alive(`${this.kind}:${id}`);
    if (payload) payload.consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    kept.delete(`${this.kind}:${id}`);
  }

  async revokeByGrantId(grantId) {
    MapAdapter.forget((_kind, payload) => payload.grantId === grantId);
  }
}
