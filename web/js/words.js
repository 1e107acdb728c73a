// The words of the live strip, in the languages of locales/. The table is JSON, so that a test without a browser can read it.

export const WORDS = {
  "en": {
    "step": "step {step}/{steps}",
    "loss": "loss {loss}",
    "notFinite": "loss not finite",
    "alike": "alike {now}",
    "likeness": "likeness {now}, best {best} at step {step}",
    "seconds": "{seconds} s left",
    "minutes": "{minutes} min left",
    "hours": "{hours} h {minutes} min left",
    "done": "done",
    "stop": "Stop",
    "stopTip": "End the training with the best so far; the workflow goes on. Cancel instead keeps it for later.",
    "stopping": "stopping",
    "stopped": "stopped",
    "cancelled": "stopped, queue to resume",
    "failed": "stopped by an error",
    "preview": "the person after step {step}",
    "training": "Training: {said}"
  },
  "zh": {
    "step": "第 {step}/{steps} 步",
    "loss": "损失 {loss}",
    "notFinite": "损失不是有限数",
    "alike": "相似 {now}",
    "likeness": "相似度 {now}，最佳 {best}（第 {step} 步）",
    "seconds": "剩余 {seconds} 秒",
    "minutes": "剩余 {minutes} 分钟",
    "hours": "剩余 {hours} 小时 {minutes} 分钟",
    "done": "完成",
    "stop": "停止",
    "stopTip": "以目前最好的结果结束训练，工作流继续运行。改按取消则保留到以后继续。",
    "stopping": "正在停止",
    "stopped": "已停止",
    "cancelled": "已停止，再次排队即可继续",
    "failed": "因错误而停止",
    "preview": "第 {step} 步之后的人物",
    "training": "训练：{said}"
  },
  "ja": {
    "step": "ステップ {step}/{steps}",
    "loss": "損失 {loss}",
    "notFinite": "損失が有限の数でない",
    "alike": "類似 {now}",
    "likeness": "類似度 {now}、最良 {best}（ステップ {step}）",
    "seconds": "残り {seconds} 秒",
    "minutes": "残り {minutes} 分",
    "hours": "残り {hours} 時間 {minutes} 分",
    "done": "完了",
    "stop": "停止",
    "stopTip": "これまでで最良の結果で学習を終え、ワークフローは先へ進みます。キャンセルなら後で続けられます。",
    "stopping": "停止中",
    "stopped": "停止しました",
    "cancelled": "停止。もう一度キューに入れると再開",
    "failed": "エラーで停止",
    "preview": "ステップ {step} の後の人物",
    "training": "学習：{said}"
  },
  "ko": {
    "step": "스텝 {step}/{steps}",
    "loss": "손실 {loss}",
    "notFinite": "손실이 유한한 수가 아님",
    "alike": "닮음 {now}",
    "likeness": "닮음 {now}, 최고 {best} (스텝 {step})",
    "seconds": "{seconds}초 남음",
    "minutes": "{minutes}분 남음",
    "hours": "{hours}시간 {minutes}분 남음",
    "done": "완료",
    "stop": "중지",
    "stopTip": "지금까지의 가장 좋은 결과로 학습을 끝내고 워크플로는 계속됩니다. 취소하면 나중에 이어서 할 수 있습니다.",
    "stopping": "중지하는 중",
    "stopped": "중지됨",
    "cancelled": "중지됨, 다시 대기열에 넣으면 이어짐",
    "failed": "오류로 중지됨",
    "preview": "스텝 {step} 이후의 인물",
    "training": "학습: {said}"
  }
};

/**
 * The words of a language.
 * @param {unknown} language of the frontend: 'ja', 'zh-TW'; whatever has no words here, undefined too, is English
 * @returns {(name: string, values?: object) => string} a name of the table → its text, with {placeholders} filled
 */
export function wordsOf(language) {
  const short = String(language ?? "").split(/[-_]/)[0].toLowerCase();
  const table = Object.hasOwn(WORDS, short) ? WORDS[short] : WORDS.en;
  return (name, values = {}) => table[name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
}
