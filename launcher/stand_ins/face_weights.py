"""The numbers of the demo detector: data, not code.

Learned in a few minutes on portraits drawn by the portrait world, their surroundings and the ten synthetic faces of the shared data, with the
detector's own mistakes added again and again. A matched filter without hidden layers, tried first, found 42 % of the faces where this finds
all but a few. Each layer: eight-bit weights times one scale, then its biases as half floats.
"""
import base64

import numpy as np

# Shape (filters, channels, height, width) and scale of each layer's weights.
LAYERS = (
    ((8, 3, 3, 3), 0.00658604),
    ((12, 8, 3, 3), 0.0115228),
    ((12, 12, 3, 3), 0.0111538),
    ((12, 12, 3, 3), 0.00775037),
    ((1, 12, 1, 1), 0.0107472),
)
_DATA = (
    "Djntf64&=J?f~KD&EmGp_~q{jDl9)I^ffCB;nMLsP5{;K2p<j#G<({Cy8;pN?HpnLzS9&3?<)GsH2lZr58+52`c&Q5{UY^J4zwcDygU)C0|DpB?%+Ko0wfRq"
    "^9T448ua%L>eAWdDHY`^=nDwF-2Mgr6b}y`@fzys_`vZe)CW$f{X6U+Ar~O_-"
    "1QIXzqj|+_7Du|GWrJ*4iDAm^6lXS@9YWeGZXA43M4rD?IR%X5&Zq&xBe4Pw%|m+<UaiU@BZ8s#wsl}^}rYH_5&RF|DoicM=OJ=f+Ytu0yBps*w6C+>iQ8D9"
    "3B$`3I+!M2nYE1{QVLL7a$l42nGE4{TTxZ0vQh!AP){05&rV_@%r}j1NQ^|@&EY%2oCrE0{;aR01y`g`{w8#81*b6^}qWWfz=zD&;<hF-wONt8y5vC^5+ud<"
    "LKQ90RQb77zRyK9Tg)G022%M@&X1A4+sAY1_b>T?Dh@~`xqV$`4{gT7YHOdH}&@g1o#I44HX#+_!biT6%h9V3;6&4`ug(n8yzApF(WZXCj$EZ`}+I|`t%DI8"
    "T$za{|o^V5*z&f4*CND7)C}W93=Dr`1{z_+^W_6%FWvXBnS@t1tbJF{NYjv;!G_H?fnz*^%dtA>KOp>^7roS{q!3J`|}YX{Twg_6d5g88v`XT`TqA43H$u|<"
    "NE^X|Ni+D9|AEc02&wv5f1hy|LFAW-tg-"
    "2Ek70}H4zH|{udYo1P1^N1rib#8VnK@|NRgsBn%xd78VvGB1S(T79&Or8~Ebz^$I2}A3qc=1``zg{QCdG7XjY`5$Es%FDw2k1L`vi`uhL^0Q>^~`TGqP2pk>"
    "@6CMQ!`|||9>-@;m6B!gp2?1s*2IJ)Z+XDRS3<4Dy1_B}&3<wtR@d5Pi7WVZBAR^!p4(kdD0sr&<?(z2i^8^tO4-"
    "F<16&n{MCj<`_2qPi_COHuwJ0=q#Bnt`<>;dr$7w`!T`_t|U?+*v=^!_*k*$MCR`}Xz+;^OY_3kDMl8V?)+2?pWe^6Kv55e)DD7W@zx()iWo#`xT=<IvK{!M"
    "&K`my_SS;uRYW1R)Cs4+#_s0Q~U&3D4O8;MWk-{0kB%2^Ad;4+!=K_4gOz>i_EP1p5CO=-"
    "CO{&;$DA>lr5zE;<<{74q~6+x`se5fbJI9|ZRe0t5jR`~M^j4E_8W3m+sNCo3L4DG3Ms5&7^93icNb6Al^u{1O!p2<Z_3{Q3?az}U#z+RFs-"
    "${siuAQj^H0`n&p_6{=*4KW%F1|H<#`sw=*-SqX{?d|mp_xlG72?q!Z3hw;|B>4LO3JU-F3<&-"
    "m{_6bq90~$490DpN_C+}^GbR28{NnuY(+LLw4<!WI>G$OD>iY--_w&*jA_NK(1sEC`_WBIr^adCb016rP1P}`?CHn{w82=C(nJ+u9eYN{8<uJf6L9slW-"
    "7@X1C#vJL`SBSP9V!MFHR}e|{}Kc85C8A)?8eO4*6{EVCHVdP@&)_%2N@am5DWSa1_BHW2L=o4<M9Cp^Vj3`(cJ9}CH>~ozV}M;`U?pXB;^<S_4qH~^9b(Z2"
    "h$J;1OWB#4+jnq1?>di{_+p~6aXFf4Fn7w3jFc!4)+lM{|fli^6$?H;@R&8_U8cb;r%E6{oDEi>H7{I1oRFW6ZZ!k<?sOL0{im<1P25V+9vPb6!8cl3LXw20"
    "Rs9C+V}(l3m5SlEc5*00R!_05eoMl!{ZIo>;N1W`r82t;`kU81@!v=2p|p-_z?mK2Mg&5{r(CM4ICW+3J>Z23IO-"
    "~<me0t0TuiX`uGX#2KxsF5B%)=`U~j_)&~6sE+--V1rYH$`wsj28T$tj4GRYx9rg_V`~L9d0{sO93i%D@-"
    "7XFv{QxEm1{Mz&D(LX)3K0hy1q1Ky0sr<04g3}m4E7EF^b-"
    "gJ_3roa?&KH@0R96M3jzN7?)(Y?77F|Q85I!p*6Hx#`V9sP@CE}OBL@iw3;zWV8W9F47YFL;{`K|w2mt~P_5TCp@)`#U4Ey^6`wSfk8UPUu0}>Gu{R;IA5*h"
    ";*0Qvsr0}t-?1^WH?=Kuig0P^_y`uY<T1O)r|0QT(;8T$ka000T>+57GM{2mS#69@PP^aJw-"
    "7x@qd2@d!H4fyj46!{4a2Lk)|3K9PgBp?kE{`m>+1rP}p5)T#$1P2lu5D5bR2KoLM2o4Jj4gClM`T`XL_ww-M;P>nB`u+k8@&N_-"
    "1po*b1_S&C`T`Ug0Q&|M2^tX}8VCyl6$}m#C;bTn{16fRA`kfq3Hk&H`1B784JG{w9Rv#sA`$%j%l8}f`X%r-"
    "^YHNd6&CkR=n5S8_|f|U>O==0^7|0Y@B|X<^da~sKK1tP@g^Sb1Mu7j`3(vf>kj<~(h)Hg81SX{74b0Q9w`eT`0Lt2#S8=89V_M$CJZJf3(xWu6W<{R=l&fK"
    "68IGy@f;HTCF=PO^92U^68+)Z*8c0?8QbXY1_lWc3H%!+2mbo+_Xq_W8TRGW@%!=r{tM*W?&$3S`3n&G0p}tP<sH!d`seiW_U91^4DsOi;szD(CoAmy`vm*;"
    "9tsKD?)wbl>=pwK{_G3{0qFG&+`<*^-v;-"
    "{0RsUu{}KQB{r~>+5bFj4`0n)(A@2M1{0R0j1M&m{{uKfU3H{^u`RD}!_z3gu<N8PR;20S5f&2{I^Zw)k*ZU9<>M|P$G!ygn3MT#w6&Uvo`}+jh`Rf7o;0i_"
    "q<MjC(;u!%3B=Y3uJq`RX;Qa{%-|YV^D*+?z<mLbIEAjdx=@%0t?&%BI?;!m8{|gc><?;yx*%j>V<vaP~Fd+*R87B<h@aaMd{~rePDiY)mGu-zJ0`u}24+ic"
    "39O3Z$73mrK1OEm2{00F61N`~{{rdm`{`vj+0{I34_XYR<`S$<&1o#F72mSi`2K)d20rv#=2K)Q{0si#_1_K8H{rC6!`~>{}|M&n01qJ>81N{32|M&#}1NHy"
    "~|N8|2{{a32{P_X^0{#B~0r>a=_xt|(0{s8`{Qm{@_V)Sz^Y;V#1pomC^92I*{`mF!_W%L>@%{b){{H>=`}O<(`vm&*{rdd}{sI8}|M~v{1oHm-"
    "0RR90`TGL*_5Aw#2KV^)0sZ>@{`Ug^0{-~;{rUa(`~m&^_x}L)K{S~&EvUe;NiBpWek{E-"
    "$tQ&@C#)Q?`TH*U+9<sMH25ba`y&G94j%L~@CY0E2oeDVKh69I>I@L`BP`7N5cB#D4F5H)EkF^-"
    "GZYo`;s!j#;u+Z%1yt|#8}Ix4@dNzy?eY~R;sF5@8Yln{92ocr2MGBK{`v<C00;pL5DNPN{q_R%_yqCu0Ph3w`~3j(`~U^<_5S+u@bL2c^6&u%`T+n2^7{q@"
    "?)m%o^YR1t`u_9$0`&j-"
    "0SE*A^#us_^a}X>_X7t4_X7d^@%8Tm2Lk{82lV&w`uqd;|MvC*^aJ(x{qzb7`U3_8C+jN>+y(MT^)weK_Zk%66%6_}5eEeY5di!OBlrU7@BRf8A~ygP8wCLe"
    "0WA^wM=bXE8Wj-&{pmai@ay~>BrhHa>lybB65bsI00;;h;QRI=3>y9N1N-*&`}h6({S5*J2>|>5{SN~8GV>)A)$tBx^Dh_^`41G-"
    "AQAjK5BmBG00i&@7W@0$_x1xAFD&#I69e}T4lM-"
    "*KQ{vT4i*dr0qs!#`QHjPA4wkx?HBSD2k0L6`3(Rl<p%W__X`5|3j6>E4Ey{51N#E|4Gjhf1_}fN1NQU({`m6;{r30&^Zon)0rUX|{Q~&^0QUs)`1khq^8fq"
    "u{Q3d&`Tqg^00{U62l4*{`UCz4{`Cg|2muBJ|M~#*{rUa#1n~j{@d)$!1NaB``}Fq+2K@o_2>$!_3I+%O_yhq2{Q3$5?I`&BLj@(&6wUS89`O4j_zV`#01^!"
    "l{16cY@c|woARHG3&e##=@fQdB2GRWf#?%7)@a@z(D;dNx2`wS)>E!SYF!?MT{x<&x7z!KjF&QHFAomC;0T=}L`uza<`uqn2`u76_{|5>K^%55TU>v;mwYM~"
    "n5zyZx$noES2;1BK0O=0qv+V}b<P^U1xYzaN;qw(H+WpAj1PuER+xyWH3N_sv0sSVR5&q|+4BzZB#wiTm^y29rIuHon2n7Nk1LOG%^z{A%^z#7x2?F@_2>$y"
    "7Ap#vI?6nnP%v%Nw_6R1wB?ILq6$0%2^yu&O_ABq(2;ut|5d;zS0to8+84Tbg9t9Ns4l@4_4d_P`?$IO-BS-ib2^IJl1KJP(1p^K$`R?N+{0{@_`{o4+|MmI"
    ";3H|-^5C-"
    "=C{09I8C+r#z+XnGU{yq{d^9UH?9|Q(R5CRSf0{!d|6bAa^^%D09H#_zpAqfEi|11>oPap^b77`ox|K~~y|Jwi{C@~cS{TJ&3{pB44@C^eh;{g0002TlO2ki"
    "Iz`~&~{1pW;11p5971``1TN9<HWoHR#aMnnl9=nEFpFADlY5bpNx2N3Zb9~Kbq{|po$GbZLC4fg^D0VoR#M=kpY8XrUw7Rhb;3=I2PIbS#m*;wcI4d5aD@BI"
    "fZ*8l4Y@&)wi9rF4E|N8y=0QUk06Z`-D5cvE2JsLV3(K+N#Pc17F6d3py5Dyqj0U7P`ChyuRAO1Pz>PGPJ9wr6{0`&Uq_ZtfXLlgP-"
    "79TVS2f%UGx(v=>MoKLw^Gg`H7V7Wl@Zsk0xfuf+AR+1$3D^n;_Y3{~`t}9u4*mQE3IhoH_5k+x^7{4&2LJ~H^8EYu0r~g+^#=tB`vLs+2KW5>?*RS!2LAi^"
    "_WSnr{QLC;2lWE?{0RT@3H|l+2l@a8`TzC^_XYt4_5B3>{Q~s*00Rj70QdX%2K)pD0RjH>0sQp~|N8Uw1^WB>k}?~tt1p@`ldjDz-"
    "zt7FtuF1eJ}|2yq!7r-7cPI1zrw2x!M*"
)


def detector_layers() -> list[tuple[np.ndarray, np.ndarray]]:
    """(weights, biases) of the five convolutions, float32, first to last."""
    data, layers, at = base64.b85decode(_DATA), [], 0
    for shape, scale in LAYERS:
        count = int(np.prod(shape))
        weights = np.frombuffer(data, np.int8, count, at).astype(np.float32).reshape(shape) * np.float32(scale)
        biases = np.frombuffer(data, "<f2", shape[0], at + count).astype(np.float32)
        layers.append((weights, biases))
        at += count + 2 * shape[0]
    return layers
