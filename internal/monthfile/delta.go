package monthfile

import (
	"encoding/binary"
	"slices"
)

// DELTA_BINARY_PACKED: a head of varints (block size, miniblocks per block,
// number of values, first value zigzagged), then for each block its smallest
// delta, one byte of bit width per miniblock, and the miniblocks: the deltas
// above the smallest, packed. Differences wrap around 64 bits.

// deltaLayout is a way to lay deltas out in one block. Blocks of any multiple
// of 128 are allowed, and one for the whole page costs least, as regular
// timestamps then take no byte but its head.
type deltaLayout struct {
	mini  int // deltas of a miniblock, a multiple of 32; 0 for the whole block
	align int // bit widths are rounded up to a multiple: at 8 zstd sees whole bytes
}

// deltas sets d to the differences of consecutive ts, less the smallest, which it returns.
func deltas(d []uint64, ts []int64) ([]uint64, int64) {
	d = slices.Grow(d[:0], len(ts))[:max(0, len(ts)-1)]
	if len(d) == 0 {
		return d, 0
	}
	smallest := ts[1] - ts[0]
	for i := range d {
		v := ts[i+1] - ts[i]
		d[i] = uint64(v)
		smallest = min(smallest, v)
	}
	for i := range d {
		d[i] -= uint64(smallest)
	}
	return d, smallest
}

// appendDelta appends the values whose first and whose deltas are given. d has
// room for padding behind its end.
func appendDelta(dst []byte, first int64, d []uint64, smallest int64, l deltaLayout) []byte {
	block := max(128, (len(d)+127)/128*128)
	mini := l.mini
	if mini == 0 {
		mini = block
	}
	dst = binary.AppendUvarint(dst, uint64(block))
	dst = binary.AppendUvarint(dst, uint64(block/mini))
	dst = binary.AppendUvarint(dst, uint64(len(d)+1))
	dst = binary.AppendVarint(dst, first)
	if len(d) == 0 {
		return dst
	}
	dst = binary.AppendVarint(dst, smallest)
	widths := len(dst)
	dst = append(dst, make([]byte, block/mini)...)
	for i := 0; i*mini < len(d); i++ {
		part := d[i*mini : min(len(d), (i+1)*mini)]
		all := uint64(0)
		for _, v := range part {
			all |= v
		}
		w := (widthOf(all) + l.align - 1) / l.align * l.align
		dst[widths+i] = byte(w)
		end := len(dst) + mini/8*w
		dst = appendPacked(dst, part, w)
		dst = append(dst, make([]byte, end-len(dst))...)
	}
	return dst
}

// decodeDelta fills out from src, which must hold exactly as many values. It
// reports false if src is damaged. tmp is scratch.
func decodeDelta(out []int64, src []byte, tmp []uint64) bool {
	pos := 0
	uvarint := func() uint64 {
		v, n := binary.Uvarint(src[pos:])
		if n <= 0 {
			pos = len(src) + 1
			return 0
		}
		pos += n
		return v
	}
	block, minis, count := uvarint(), uint64(0), uint64(0)
	if pos <= len(src) {
		minis = uvarint()
	}
	if pos <= len(src) {
		count = uvarint()
	}
	if pos > len(src) || block == 0 || block > 1<<31 || block%128 != 0 || minis == 0 || block%minis != 0 || block/minis%32 != 0 || count != uint64(len(out)) {
		return false
	}
	first, n := binary.Varint(src[pos:])
	if n <= 0 {
		return false
	}
	pos += n
	if len(out) == 0 {
		return true
	}
	out[0] = first
	last := first
	out = out[1:]
	mini := int(block / minis)
	for len(out) > 0 {
		smallest, n := binary.Varint(src[pos:])
		if n <= 0 || minis > uint64(len(src)-pos-n) {
			return false
		}
		pos += n
		widths := src[pos : pos+int(minis)]
		pos += int(minis)
		for _, width := range widths {
			if len(out) == 0 {
				break
			}
			w := int(width)
			part := out[:min(mini, len(out))]
			out = out[len(part):]
			if w == 0 {
				for i := range part {
					last += smallest
					part[i] = last
				}
				continue
			}
			if w > 64 || packedLen(len(part), w) > len(src)-pos {
				return false
			}
			body := src[pos:]
			for len(part) > 0 {
				t := tmp[:min(len(tmp), len(part))] // whole bytes, as len(tmp) is a multiple of eight
				unpack(t, body, w)
				for i, v := range t {
					last += int64(v) + smallest
					part[i] = last
				}
				body = body[min(len(body), packedLen(len(t), w)):]
				part = part[len(t):]
			}
			pos = min(len(src), pos+mini/8*w)
		}
	}
	return true
}
